//! Images and video in and out: decoding with limits, resizing, drawing, writing.
