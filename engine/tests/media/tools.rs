//! ffmpeg and GStreamer as cameras and as judges, and a folder for their files.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harborseal::media::{Export, Packet, Range, Report, Stream};

/// A recorded packet, as a segment would give it back.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub arrival_ns: u64,
    pub rtcp: bool,
    pub bytes: Vec<u8>,
}

/// Runs a tool to its end and fails the test, with its words, if it fails or is missing.
pub fn run(tool: &str, arguments: &[&str]) -> Output {
    let output = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| {
            panic!("{tool} is needed for this test and cannot be run ({e}); tests/run installs it")
        });
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?} failed:\n{words}");
    output
}

/// ffmpeg, quiet.
pub fn ffmpeg(arguments: &[&str]) -> Output {
    let mut all = vec!["-hide_banner", "-nostdin", "-v", "error", "-y"];
    all.extend(arguments);
    run("ffmpeg", &all)
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("test folders have plain names")
}

/// Hash of each decoded frame, in order of showing; fails on any word of the decoder.
pub fn frame_hashes(path: &Path) -> Vec<String> {
    let output = ffmpeg(&["-i", text(path), "-an", "-autoscale", "0", "-f", "framemd5", "-"]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        words.is_empty(),
        "ffmpeg complains of {}:\n{words}",
        path.display()
    );
    hashes(&output)
}

fn hashes(output: &Output) -> Vec<String> {
    let lines = String::from_utf8_lossy(&output.stdout);
    let frames = lines.lines().filter(|line| !line.starts_with('#'));
    frames
        .map(|line| line.rsplit(',').next().unwrap_or_default().trim().to_owned())
        .collect()
}

/// The same, where references are missing by nature and the decoder says so.
pub fn frame_hashes_despite_words(path: &Path) -> Vec<String> {
    hashes(&ffmpeg(&["-i", text(path), "-an", "-f", "framemd5", "-"]))
}

/// Hash of each stored access unit, in decoding order.
pub fn unit_hashes(path: &Path) -> Vec<String> {
    hashes(&ffmpeg(&[
        "-i",
        text(path),
        "-map",
        "0:v:0",
        "-c",
        "copy",
        "-f",
        "framemd5",
        "-",
    ]))
}

/// Presentation time of each frame shown, in seconds, as ffprobe reads the container.
pub fn shown_times(path: &Path) -> Vec<f64> {
    let lines = probe(path, "frame=pts_time");
    lines
        .lines()
        // Side data has lines of its own.
        .map(|line| line.trim_end_matches(','))
        .filter(|line| !line.is_empty())
        .map(|line| line.parse().expect("ffprobe prints a number"))
        .collect()
}

/// One value of `ffprobe -show_entries` per line.
pub fn probe(path: &Path, entries: &str) -> String {
    let arguments = [
        "-v",
        "error",
        "-select_streams",
        "v:0",
        "-show_entries",
        entries,
        "-of",
        "csv=p=0",
    ];
    let mut arguments = arguments.to_vec();
    arguments.push(text(path));
    String::from_utf8_lossy(&run("ffprobe", &arguments).stdout)
        .trim()
        .to_owned()
}

/// What an encoder makes of the test picture.
pub struct Clip {
    /// The elementary stream in MP4, whose times the RTP sender uses.
    pub movie: PathBuf,
    /// The elementary stream alone: the reference.
    pub elementary: PathBuf,
}

/// Encodes `frames` frames of a moving test picture with `arguments` for the encoder.
pub fn encode(folder: &Path, name: &str, size: &str, frames: u32, arguments: &[&str]) -> Clip {
    let hevc = arguments.contains(&"libx265");
    let movie = folder.join(format!("{name}.mp4"));
    let elementary = folder.join(format!("{name}.{}", if hevc { "265" } else { "264" }));
    let source = format!("testsrc2=size={size}:rate=25,noise=alls=6:all_seed=7");
    let frames = frames.to_string();
    let mut all = vec![
        "-f",
        "lavfi",
        "-i",
        &source,
        "-frames:v",
        &frames,
        "-pix_fmt",
        "yuv420p",
    ];
    all.extend(arguments);
    if hevc {
        all.extend(["-tag:v", "hvc1"]);
    }
    all.push(text(&movie));
    ffmpeg(&all);
    ffmpeg(&["-i", text(&movie), "-c", "copy", text(&elementary)]);
    Clip { movie, elementary }
}

/// A recorder: RTP at an even port of the loopback, RTCP at the next, each packet stamped as it is read.
pub struct Recorder {
    pub port: u16,
    stop: Arc<AtomicBool>,
    packets: Arc<Mutex<Vec<Recorded>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Recorder {
    pub fn new() -> Recorder {
        let (rtp, rtcp) = bind_pair();
        let port = rtp.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let packets = Arc::new(Mutex::new(Vec::new()));
        let threads = [(rtp, false), (rtcp, true)].map(|(socket, is_rtcp)| {
            let (stop, packets) = (Arc::clone(&stop), Arc::clone(&packets));
            std::thread::spawn(move || receive(&socket, is_rtcp, &stop, &packets))
        });
        Recorder {
            port,
            stop,
            packets,
            threads: threads.into(),
        }
    }

    /// All packets in arrival order, once nothing has come for a while.
    pub fn finish(self) -> Vec<Recorded> {
        std::thread::sleep(Duration::from_millis(300));
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let mut packets = std::mem::take(&mut *self.packets.lock().unwrap());
        packets.sort_by_key(|p| p.arrival_ns);
        packets
    }
}

fn receive(socket: &UdpSocket, rtcp: bool, stop: &AtomicBool, packets: &Mutex<Vec<Recorded>>) {
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        if let Ok(length) = socket.recv(&mut buffer) {
            let arrival_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
            packets.lock().unwrap().push(Recorded {
                arrival_ns,
                rtcp,
                bytes: buffer[..length].to_vec(),
            });
        }
    }
}

/// Two sockets on neighbouring ports, the first even, with buffers as large as the system grants.
fn bind_pair() -> (UdpSocket, UdpSocket) {
    for _ in 0..200 {
        let Ok(first) = UdpSocket::bind("127.0.0.1:0") else {
            continue;
        };
        let port = first.local_addr().unwrap().port();
        if port % 2 != 0 {
            continue;
        }
        let Ok(second) = UdpSocket::bind(("127.0.0.1", port + 1)) else {
            continue;
        };
        rustix::net::sockopt::set_socket_recv_buffer_size(&first, 4 << 20).unwrap();
        return (first, second);
    }
    panic!("no free pair of UDP ports on the loopback");
}

/// What a camera sent: its description and its packets.
pub struct Shot {
    pub sdp: String,
    pub packets: Vec<Recorded>,
}

impl Shot {
    /// The one media stream of it.
    pub fn stream(&self) -> Stream {
        let rtp = self
            .packets
            .iter()
            .find(|p| !p.rtcp)
            .expect("the camera sent something");
        let ssrc = u32::from_be_bytes(rtp.bytes[8..12].try_into().unwrap());
        Stream {
            ssrc,
            media_index: 0,
            sdp: self.sdp.as_str().into(),
        }
    }

    /// Fails if the recording itself lost packets: then it proves nothing.
    pub fn assert_whole(self) -> Shot {
        let numbers: Vec<u16> = self
            .packets
            .iter()
            .filter(|p| !p.rtcp)
            .map(|p| u16::from_be_bytes([p.bytes[2], p.bytes[3]]))
            .collect();
        assert!(!numbers.is_empty(), "nothing was recorded");
        for pair in numbers.windows(2) {
            assert_eq!(
                pair[1],
                pair[0].wrapping_add(1),
                "the test's own socket lost packets"
            );
        }
        self
    }
}

/// Sends `movie` once through ffmpeg's RTP muxer, with `arguments` before the output, and records it.
pub fn shoot_with_ffmpeg(movie: &Path, arguments: &[&str]) -> Shot {
    let recorder = Recorder::new();
    let url = format!("rtp://127.0.0.1:{}?pkt_size=1200", recorder.port);
    let sdp_file = movie.with_extension(format!("{}.sdp", recorder.port));
    // Four times real time: fast, and no socket buffer overflows.
    let mut all = vec!["-readrate", "4", "-i", text(movie), "-c", "copy"];
    all.extend(arguments);
    all.extend(["-f", "rtp", "-sdp_file", text(&sdp_file), &url]);
    ffmpeg(&all);
    let sdp = std::fs::read_to_string(&sdp_file).unwrap();
    Shot {
        sdp,
        packets: recorder.finish(),
    }
    .assert_whole()
}

/// Exports what `streams` sent.
pub fn export_to(
    out: &Path,
    streams: &[(Stream, &[Recorded])],
    range: Range,
) -> Result<Report, harborseal::media::Error> {
    let all: Vec<Stream> = streams.iter().map(|s| s.0.clone()).collect();
    let mut packets: Vec<(&Stream, &Recorded)> = streams
        .iter()
        .flat_map(|(stream, packets)| packets.iter().map(move |p| (stream, p)))
        .collect();
    packets.sort_by_key(|(_, p)| p.arrival_ns);
    let mut export = Export::create(out, &all, range)?;
    for (stream, packet) in packets {
        let Recorded {
            arrival_ns,
            rtcp,
            bytes,
        } = packet;
        export.push(
            stream,
            Packet {
                arrival_ns: *arrival_ns,
                rtcp: *rtcp,
                bytes,
            },
        )?;
    }
    export.finish()
}

/// Exports one shot whole and expects that to work.
pub fn export(out: &Path, shot: &Shot) -> Report {
    export_to(out, &[(shot.stream(), &shot.packets)], Range::default()).expect("the export works")
}

/// The fields of RTP packets that tests rewrite.
impl Recorded {
    pub fn number(&self) -> u16 {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]])
    }

    pub fn set_number(&mut self, number: u16) {
        self.bytes[2..4].copy_from_slice(&number.to_be_bytes());
    }

    pub fn rtp_time(&self) -> u32 {
        u32::from_be_bytes(self.bytes[4..8].try_into().unwrap())
    }

    pub fn set_rtp_time(&mut self, rtp_time: u32) {
        self.bytes[4..8].copy_from_slice(&rtp_time.to_be_bytes());
    }

    pub fn set_marker(&mut self, marker: bool) {
        self.bytes[1] = self.bytes[1] & 0x7F | u8::from(marker) << 7;
    }

    pub fn set_ssrc(&mut self, ssrc: u32) {
        self.bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
    }
}

impl Shot {
    /// The same shot without RTCP, and with arrivals spaced as the frames are: as a live camera would have sent it,
    /// beginning at `start_ns`.
    pub fn live(mut self, start_ns: u64) -> Shot {
        self.packets.retain(|p| !p.rtcp);
        let base = self.packets[0].rtp_time();
        let mut clock_ns = start_ns;
        let mut latest = 0;
        for packet in &mut self.packets {
            let ticks = packet.rtp_time().wrapping_sub(base) as i32;
            // With B-frames a frame leaves when it is encoded, not when it is shown: time never runs back.
            latest = latest.max(ticks);
            let due_ns = start_ns + u64::from(latest.unsigned_abs()) * 1_000_000 / 90;
            clock_ns = due_ns.max(clock_ns + 1_000);
            packet.arrival_ns = clock_ns;
        }
        self
    }

    /// Packets of each frame, by timestamp, in order of sending.
    pub fn frames(&self) -> Vec<(u32, Vec<usize>)> {
        let mut frames: Vec<(u32, Vec<usize>)> = Vec::new();
        for (index, packet) in self.packets.iter().enumerate().filter(|(_, p)| !p.rtcp) {
            match frames.last_mut() {
                Some((time, indices)) if *time == packet.rtp_time() => indices.push(index),
                _ => frames.push((packet.rtp_time(), vec![index])),
            }
        }
        frames
    }
}

/// Sends `movie` through a GStreamer pipeline: `payloader` stands between the demultiplexed stream and the network.
pub fn shoot_with_gstreamer(movie: &Path, encoding: &str, payloader: &str) -> Shot {
    let recorder = Recorder::new();
    let pipeline = format!(
        "filesrc location={} ! qtdemux ! {payloader} ! udpsink host=127.0.0.1 port={} sync=false",
        text(movie),
        recorder.port
    );
    let mut arguments = vec!["-q"];
    arguments.extend(pipeline.split(' '));
    run("gst-launch-1.0", &arguments);
    Shot {
        sdp: sdp(encoding, ""),
        packets: recorder.finish(),
    }
    .assert_whole()
}

/// A session description with one m-line of payload type 96.
pub fn sdp(encoding: &str, parameters: &str) -> String {
    let format = if parameters.is_empty() {
        String::new()
    } else {
        format!("a=fmtp:96 {parameters}\r\n")
    };
    format!(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=video 5004 RTP/AVP 96\r\na=rtpmap:96 {encoding}/90000\r\n{format}"
    )
}
