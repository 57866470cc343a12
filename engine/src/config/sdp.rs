//! What a session description (SDP, RFC 8866) says of the streams a camera sends.

use std::sync::Arc;

use sdp_types::Session;

use crate::stream::registry::{Media, Stream};

/// Longest session description taken, in bytes: it must fit a STREAM block, and ones of real cameras are below 2 KiB.
pub const SDP_BYTES_MAX: usize = 16 * 1024;

/// A session description that was understood.
#[derive(Clone)]
pub struct Sdp {
    /// The text, as it is sealed into segments.
    pub text: Arc<str>,
    lines: Vec<MediaLine>,
}

/// One m-line.
#[derive(Clone)]
struct MediaLine {
    clock_rate_hz: u32,
    /// The SSRCs its `a=ssrc` lines name (RFC 5576 §4.1).
    ssrcs: Vec<u32>,
}

impl Sdp {
    /// Parses a session description. `SDP:` alone on the first line, as ffmpeg prints it, is left out.
    pub fn parse(text: &str) -> Result<Sdp, String> {
        if text.len() > SDP_BYTES_MAX {
            return Err(format!(
                "the session description has {} bytes; at most {SDP_BYTES_MAX} are taken",
                text.len()
            ));
        }
        let text = text.trim_start_matches("SDP:").trim_start();
        let session =
            Session::parse(text.as_bytes()).map_err(|error| format!("no session description: {error}"))?;
        if session.medias.is_empty() {
            return Err("the session description has no m= line, so no stream".to_owned());
        }
        let lines = session.medias.iter().map(|media| MediaLine {
            clock_rate_hz: clock_rate_hz(media),
            ssrcs: ssrcs(media),
        });
        Ok(Sdp {
            text: text.into(),
            lines: lines.collect(),
        })
    }

    /// Gives each SSRC its m-line: the one whose `a=ssrc` names it; the rest take the m-lines that name none, in order.
    pub fn map(&self, ssrcs: &[u32]) -> Result<Vec<Stream>, String> {
        let named = |ssrc: u32| self.lines.iter().position(|line| line.ssrcs.contains(&ssrc));
        let mut unnamed =
            (0..self.lines.len()).filter(|at| !self.lines[*at].ssrcs.iter().any(|s| ssrcs.contains(s)));
        let of = |&ssrc: &u32| {
            let at = named(ssrc).or_else(|| unnamed.next()).ok_or_else(|| {
                format!(
                    "{} SSRCs, but the session description has {} m= lines to map them to",
                    ssrcs.len(),
                    self.lines.len()
                )
            })?;
            Ok(Stream {
                ssrc,
                media: self.media(at),
            })
        };
        ssrcs.iter().map(of).collect()
    }

    /// What an SSRC that is not listed carries: the only m-line there is, else nobody knows.
    pub fn unlisted(&self) -> Media {
        if self.lines.len() == 1 {
            self.media(0)
        } else {
            Media::UNKNOWN
        }
    }

    fn media(&self, at: usize) -> Media {
        let media_index = u16::try_from(at).expect("16 KiB hold fewer than 65,535 m= lines");
        Media {
            media_index,
            clock_rate_hz: self.lines[at].clock_rate_hz,
        }
    }
}

/// The clock rate of the m-line's first format: its `a=rtpmap` (RFC 8866 §6.6), else the static table; 0 if neither.
fn clock_rate_hz(media: &sdp_types::Media) -> u32 {
    let first = media.fmt.split_ascii_whitespace().next().unwrap_or_default();
    let mapped = media
        .attributes
        .iter()
        .filter(|a| a.attribute == "rtpmap")
        .find_map(|attribute| {
            let (format, encoding) = attribute.value.as_deref()?.trim().split_once(' ')?;
            (format == first)
                .then(|| encoding.trim().split('/').nth(1)?.parse().ok())
                .flatten()
        });
    mapped
        .or_else(|| static_clock_rate_hz(first.parse().ok()?))
        .unwrap_or(0)
}

/// RFC 3551 §6, tables 4 and 5.
fn static_clock_rate_hz(payload_type: u8) -> Option<u32> {
    match payload_type {
        0 | 3 | 4 | 5 | 7 | 8 | 9 | 12 | 13 | 15 | 18 => Some(8_000),
        6 => Some(16_000),
        10 | 11 => Some(44_100),
        16 => Some(11_025),
        17 => Some(22_050),
        14 | 25 | 26 | 28 | 31 | 32 | 33 | 34 => Some(90_000),
        _ => None,
    }
}

fn ssrcs(media: &sdp_types::Media) -> Vec<u32> {
    let lines = media
        .attributes
        .iter()
        .filter(|a| a.attribute == "ssrc")
        .filter_map(|a| a.value.as_deref());
    let mut ssrcs: Vec<u32> = lines
        .filter_map(|v| v.split_ascii_whitespace().next()?.parse().ok())
        .collect();
    ssrcs.dedup();
    ssrcs
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: &str = "m=video 5004 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n";
    const AUDIO: &str = "m=audio 5006 RTP/AVP 0\r\n";

    fn sdp(parts: &[&str]) -> Sdp {
        Sdp::parse(&format!(
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n{}",
            parts.concat()
        ))
        .expect("an SDP")
    }

    fn indices(sdp: &Sdp, ssrcs: &[u32]) -> Vec<(u16, u32)> {
        let streams = sdp.map(ssrcs).expect("mapped");
        assert!(streams.iter().map(|s| s.ssrc).eq(ssrcs.iter().copied()));
        streams
            .iter()
            .map(|s| (s.media.media_index, s.media.clock_rate_hz))
            .collect()
    }

    #[test]
    fn ssrcs_take_the_m_lines_in_order() {
        assert_eq!(indices(&sdp(&[VIDEO, AUDIO]), &[5, 6]), [(0, 90_000), (1, 8_000)]);
        assert_eq!(indices(&sdp(&[VIDEO, AUDIO]), &[5]), [(0, 90_000)]);
    }

    #[test]
    fn ssrc_lines_win_over_order() {
        let named = sdp(&[VIDEO, "a=ssrc:6 cname:x\r\n", AUDIO]);
        assert_eq!(indices(&named, &[5, 6]), [(1, 8_000), (0, 90_000)]);
        assert_eq!(indices(&named, &[6, 5]), [(0, 90_000), (1, 8_000)]);
        let both = sdp(&[VIDEO, "a=ssrc:6 cname:x\r\na=ssrc:7 cname:x\r\n"]);
        assert_eq!(indices(&both, &[7, 6]), [(0, 90_000), (0, 90_000)]);
    }

    #[test]
    fn more_ssrcs_than_m_lines_are_refused() {
        assert!(
            sdp(&[VIDEO])
                .map(&[5, 6])
                .is_err_and(|e| e.contains("1 m= lines"))
        );
    }

    #[test]
    fn an_unlisted_ssrc_is_known_only_beside_a_single_m_line() {
        assert_eq!(
            sdp(&[VIDEO]).unlisted(),
            Media {
                media_index: 0,
                clock_rate_hz: 90_000
            }
        );
        assert_eq!(sdp(&[VIDEO, AUDIO]).unlisted(), Media::UNKNOWN);
    }

    #[test]
    fn the_clock_rate_is_that_of_the_first_format() {
        let several =
            sdp(&["m=audio 5006 RTP/AVP 97 8\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:97 opus/48000/2\r\n"]);
        assert_eq!(indices(&several, &[1]), [(0, 48_000)]);
        assert_eq!(indices(&sdp(&["m=video 5006 RTP/AVP 99\r\n"]), &[1]), [(0, 0)]);
        assert_eq!(
            indices(&sdp(&["m=video 5006 RTP/AVP 26\r\n"]), &[1]),
            [(0, 90_000)]
        );
    }

    #[test]
    fn what_is_no_session_description_is_refused() {
        assert!(Sdp::parse("hello").is_err());
        assert!(Sdp::parse("v=0\r\ns=x\r\n").is_err_and(|e| e.contains("no m= line")));
        assert!(Sdp::parse(&"v=0\r\n".repeat(4000)).is_err_and(|e| e.contains("16384")));
    }

    #[test]
    fn the_heading_that_ffmpeg_prints_is_left_out() {
        let printed = Sdp::parse(&format!("SDP:\nv=0\n{VIDEO}")).expect("an SDP");
        assert!(printed.text.starts_with("v=0"));
    }
}
