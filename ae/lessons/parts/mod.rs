//! Parts of the lessons that a reader has seen already. A lesson that needs what an earlier one
//! taught takes it from here, and has the new step in its own file.
#![allow(dead_code)] // each lesson uses some of it

pub mod clients;
pub mod data;
pub mod fork;
pub mod links;
pub mod net;
pub mod port;
pub mod resp;
pub mod spin;
pub mod worker;
