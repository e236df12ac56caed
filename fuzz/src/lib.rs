//! The readers of the library, for the fuzz targets; those of the programs are in `predict::fuzz`.

pub mod readers;
