//! System tests: the real binary, real files, real sockets, and kill -9. One test binary, a module a subject.

mod brokers;
mod browser;
mod cli;
mod cluster;
mod contract;
mod crash;
mod deployment;
mod faults;
mod foreign;
mod generations;
mod hostile;
mod installation;
mod killed;
mod law;
mod member_pages;
mod members;
mod metrics;
mod operations;
mod people;
mod place;
mod real_data;
mod sbom;
mod support;
mod topics;
mod walkthroughs;
mod widget;
