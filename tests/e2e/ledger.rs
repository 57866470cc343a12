//! The ledger says exactly what happened to a stream: nothing more, nothing less, and every packet that it calls
//! stored comes back as it was sent.
