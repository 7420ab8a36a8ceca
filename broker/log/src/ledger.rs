//! What one trigger is owed from one partition, and what became of each debt.
//!
//! Interface (implementation to follow):
