//! Patchwork (ICCV 2019): stateful windowed object detection and segmentation in video.
