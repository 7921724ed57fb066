//! Properties of the model on generated records: merging, decoding, the bytes of keys and rows, the rules of points.

mod codecs;
mod decoding;
mod generators;
mod limits;
mod loyalty;
mod merging;
