//! Code of the lessons that a reader has seen in an earlier lesson. A lesson imports the code of
//! earlier lessons from this module, and has its new step in its own file.
#![allow(dead_code)] // each lesson uses some of the functions

pub mod clients;
pub mod data;
pub mod fork;
pub mod links;
pub mod net;
pub mod port;
pub mod resp;
pub mod spin;
pub mod worker;
