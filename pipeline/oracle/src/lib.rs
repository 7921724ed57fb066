//! Every view by brute force from a set of records, with nothing but the standard library: what `verify` and the tests hold the
//! dataflow against.
