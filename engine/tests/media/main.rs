//! Export against real tools: what ffmpeg and GStreamer send as RTP comes back from the exported file with every
//! frame's hash, in order of showing, none missing, none extra; and what happens to it on the way is told as it is.

mod beginnings;
mod captures;
mod impaired;
mod parameter_sets;
mod roundtrip;
mod times;
mod tools;
