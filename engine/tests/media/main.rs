//! Export against real tools: what ffmpeg and GStreamer send as RTP comes back from the exported file with every
//! frame's hash, in order of showing, none missing, none extra.

mod roundtrip;
mod tools;
