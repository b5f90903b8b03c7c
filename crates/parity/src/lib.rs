//! Golden files: reader, seeded weights, named tolerances, and the cases that 'zoo parity' runs.
