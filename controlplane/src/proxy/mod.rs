//! The proxy on every node: leads a group's clients to its primary or its standbys, wherever those are.
//!
//! It copies bytes and knows no passwords. It never chooses a primary: it follows the routes, holds new clients while there
//! is none, and cuts off whoever is still connected to a former one.

pub mod local;
pub mod routes;
