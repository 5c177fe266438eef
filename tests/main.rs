//! The one integration-test binary, a module a topic.

mod bad_files;
mod pack;
mod quantiser;
