//! A fleet of RTP cameras that says exactly what it sent.
