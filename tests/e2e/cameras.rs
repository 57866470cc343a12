//! Real cameras: ffmpeg and GStreamer send, the owner exports, and every frame of the MP4 decodes to the same picture
//! as the frame of the elementary stream that was sent: in order of presentation, none missing, none extra.

use std::path::PathBuf;

use harborseal_tests::harness::tools::{self, Running, assert_decodes, encode, frames, hashes, text, tool};
use harborseal_tests::harness::{Camera, Lab, harborseal};

const SECONDS: u32 = 5;
const FPS: u32 = 25;

/// A film and its way to the engine.
enum Film {
    /// ffmpeg sends a Matroska file: parameter sets are in the SDP alone.
    Ffmpeg { muxed: PathBuf },
    /// GStreamer sends what it encoded: parameter sets are in band alone.
    GStreamer { pipeline: String },
}

/// A camera that sends a film of which we hold the elementary stream.
struct Actor {
    id: &'static str,
    customer: &'static str,
    ssrc: u32,
    film: Film,
    /// What was sent, once it has been sent.
    elementary: PathBuf,
}

fn ffmpeg_camera(
    lab: &Lab,
    id: &'static str,
    customer: &'static str,
    ssrc: u32,
    encoder: &[&str],
) -> (Actor, Camera) {
    let muxed = lab.path(&format!("{id}.mkv"));
    encode(&muxed, SECONDS, encoder);
    let kind = if encoder.contains(&"libx265") {
        "h265"
    } else {
        "h264"
    };
    let elementary = lab.path(&format!("{id}.{kind}"));
    tool(
        "ffmpeg",
        &["-v", "error", "-i", text(&muxed), "-c", "copy", text(&elementary)],
    );
    // The description comes from a first, short run towards the discard port.
    let sdp = lab.path(&format!("{id}.sdp"));
    #[rustfmt::skip]
    tool("ffmpeg", &[
        "-v", "error", "-i", text(&muxed), "-t", "0.05", "-c", "copy", "-f", "rtp", "-sdp_file", text(&sdp),
        "rtp://127.0.0.1:9",
    ]);
    let camera = Camera::new(id, customer, ssrc).sdp(format!("{id}.sdp"));
    (
        Actor {
            id,
            customer,
            ssrc,
            film: Film::Ffmpeg { muxed },
            elementary,
        },
        camera,
    )
}

/// `encoder` is a GStreamer element with its properties; `codec` is h264 or h265.
fn gstreamer_camera(
    lab: &Lab,
    id: &'static str,
    customer: &'static str,
    ssrc: u32,
    codec: &str,
    encoder: &str,
) -> (Actor, Camera) {
    let (muxed, elementary) = (lab.path(&format!("{id}.mkv")), lab.path(&format!("{id}.{codec}")));
    let (buffers, port) = (SECONDS * FPS, lab.port);
    let file = muxed.display();
    let filming = format!(
        "videotestsrc num-buffers={buffers} pattern=ball \
         ! video/x-raw,format=I420,width=320,height=240,framerate={FPS}/1 ! {encoder} ! {codec}parse \
         ! matroskamux ! filesink location={file}"
    );
    let mut arguments = vec!["-q"];
    arguments.extend(filming.split_whitespace());
    tool("gst-launch-1.0", &arguments);
    tool(
        "ffmpeg",
        &["-v", "error", "-i", text(&muxed), "-c", "copy", text(&elementary)],
    );
    let pipeline = format!(
        "filesrc location={file} ! matroskademux ! {codec}parse ! rtp{codec}pay pt=96 ssrc={ssrc} config-interval=-1 \
         ! udpsink host=127.0.0.1 port={port}"
    );
    let name = codec.to_uppercase();
    let sdp = format!(
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n\
         a=rtpmap:96 {name}/90000\n"
    );
    let camera = Camera::new(id, customer, ssrc).sdp(sdp);
    (
        Actor {
            id,
            customer,
            ssrc,
            film: Film::GStreamer { pipeline },
            elementary,
        },
        camera,
    )
}

impl Actor {
    fn perform(&self, lab: &Lab) -> Running {
        let errors = lab.path(&format!("{}.errors", self.id));
        match &self.film {
            Film::Ffmpeg { muxed } => {
                let (ssrc, to) = (
                    self.ssrc.to_string(),
                    format!("rtp://127.0.0.1:{}?pkt_size=1200", lab.port),
                );
                #[rustfmt::skip]
                let arguments = [
                    "-v", "error", "-re", "-i", text(muxed), "-c", "copy", "-ssrc", &ssrc, "-f", "rtp", &to,
                ];
                Running::start("ffmpeg", &arguments, errors)
            }
            Film::GStreamer { pipeline } => {
                let mut arguments = vec!["-q"];
                arguments.extend(pipeline.split_whitespace());
                Running::start("gst-launch-1.0", &arguments, errors)
            }
        }
    }

    /// The owner's MP4 shows exactly the film.
    #[track_caller]
    fn assert_played_back(&self, lab: &Lab) {
        let out = lab.path(&format!("{}.mp4", self.id));
        lab.export(self.customer, self.id, &out, &[]).ok();
        assert_decodes(&out);
        let shown = frames(&out);
        let film = hashes(&self.elementary);
        assert_eq!(film.len() as u32, SECONDS * FPS, "{}: the film itself", self.id);
        let shown_hashes: Vec<&String> = shown.iter().map(|(_, hash)| hash).collect();
        let differ = film.iter().zip(&shown_hashes).position(|(a, b)| a != *b);
        assert_eq!(
            (film.len(), differ),
            (shown.len(), None),
            "{}: frames sent and shown; first difference",
            self.id
        );
        // A frame every 40 ms, as it was filmed: the RTP clock says so to a ninety-thousandth.
        for pair in shown.windows(2) {
            let step_ms = (pair[1].0 - pair[0].0) * 1000.0;
            assert!(
                (step_ms - 40.0).abs() < 1.1,
                "{}: a step of {step_ms} ms at {} s",
                self.id,
                pair[0].0
            );
        }
        assert!(
            shown[0].0.abs() < 0.001,
            "{}: the film begins at {} s",
            self.id,
            shown[0].0
        );
    }
}

/// All perform at once, then each owner gets the film back, and nobody else does.
#[track_caller]
fn record_and_play_back(lab: &mut Lab, cast: Vec<(Actor, Camera)>) {
    let mut actors = Vec::new();
    for (actor, camera) in cast {
        lab.camera(camera);
        actors.push(actor);
    }
    let engine = lab.start();
    let running: Vec<Running> = actors.iter().map(|actor| actor.perform(lab)).collect();
    running.into_iter().for_each(Running::finish);
    let last = lab.settle_and_stop(engine);
    assert_eq!(last["received"], last["stored"], "{last}");
    assert_eq!(last["lost"], 0, "{last}");
    for actor in &actors {
        actor.assert_played_back(lab);
        let other = if actor.customer == "alice" { "bob" } else { "alice" };
        let stolen = lab.path("stolen.mp4");
        lab.export(other, actor.id, &stolen, &[]).exits(3);
        assert!(!stolen.exists());
        lab.verify(actor.customer);
    }
}

const X265_QUIET: &str = "log-level=none";

#[test]
fn films_with_b_frames_of_three_cameras_and_two_customers_come_back_frame_by_frame() {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.customer("bob");
    let x265 = format!("{X265_QUIET}:bframes=3:keyint=25");
    let cast = vec![
        ffmpeg_camera(
            &lab,
            "x264-b",
            "alice",
            11,
            &["-c:v", "libx264", "-bf", "3", "-g", "25"],
        ),
        ffmpeg_camera(
            &lab,
            "x265-b",
            "bob",
            12,
            &["-c:v", "libx265", "-x265-params", &x265],
        ),
        gstreamer_camera(
            &lab,
            "gst264-b",
            "alice",
            13,
            "h264",
            "x264enc bframes=2 key-int-max=25 speed-preset=fast",
        ),
    ];
    record_and_play_back(&mut lab, cast);
}

#[test]
fn films_without_b_frames_of_three_cameras_and_two_customers_come_back_frame_by_frame() {
    let mut lab = Lab::new();
    lab.section("segment", "max_age = \"2s\"\nmax_bytes = \"64MiB\"");
    lab.customer("alice");
    lab.customer("bob");
    let x265 = format!("{X265_QUIET}:bframes=0:keyint=50");
    let cast = vec![
        ffmpeg_camera(
            &lab,
            "x264-slices",
            "bob",
            21,
            &["-c:v", "libx264", "-bf", "0", "-g", "50", "-slices", "4"],
        ),
        ffmpeg_camera(
            &lab,
            "x265",
            "alice",
            22,
            &["-c:v", "libx265", "-x265-params", &x265],
        ),
        gstreamer_camera(
            &lab,
            "gst265",
            "bob",
            23,
            "h265",
            "x265enc key-int-max=25 option-string=log-level=none:bframes=0",
        ),
    ];
    record_and_play_back(&mut lab, cast);
}

/// A range is [from, to) by arrival, and what is shown begins with its first frame, though decoding must begin at
/// the key frame before.
#[test]
fn a_range_shows_exactly_the_frames_that_arrived_in_it() {
    let mut lab = Lab::new();
    lab.customer("alice");
    let (actor, camera) = ffmpeg_camera(
        &lab,
        "yard",
        "alice",
        31,
        &["-c:v", "libx264", "-bf", "0", "-g", "50"],
    );
    lab.camera(camera);
    let engine = lab.start();
    actor.perform(&lab).finish();
    lab.settle_and_stop(engine);

    // Where a frame ends and the next begins, by arrival: tshark reads it from the other export.
    let capture = lab.path("yard.pcapng");
    lab.export("alice", "yard", &capture, &[]).ok();
    let rows = rtp_rows(&capture);
    let mut boundaries = Vec::new();
    for pair in rows.windows(2) {
        if pair[0].marker {
            boundaries.push(u128::midpoint(pair[0].arrival_ns, pair[1].arrival_ns));
        }
    }
    let film = hashes(&actor.elementary);
    assert_eq!(boundaries.len() + 1, film.len(), "each frame ends with a marker");
    // Frame 60 is ten after a key frame; frame 100 is one.
    for (first, beyond) in [(0, 60), (60, 101), (100, 125), (7, 8)] {
        let from = rfc3339(if first == 0 {
            rows[0].arrival_ns
        } else {
            boundaries[first - 1]
        });
        let to = rfc3339(
            boundaries
                .get(beyond - 1)
                .copied()
                .unwrap_or(rows[rows.len() - 1].arrival_ns + 1),
        );
        let out = lab.path(&format!("yard-{first}.mp4"));
        lab.export("alice", "yard", &out, &["--from", &from, "--to", &to])
            .ok();
        let shown = frames(&out);
        let shown_hashes: Vec<&str> = shown.iter().map(|(_, hash)| hash.as_str()).collect();
        let wanted: Vec<&str> = film[first..beyond].iter().map(String::as_str).collect();
        assert_eq!(shown_hashes, wanted, "frames {first}..{beyond}, {from} to {to}");
        assert!(shown[0].0.abs() < 0.001, "it begins at {} s", shown[0].0);
    }
    let nothing = lab.path("nothing.mp4");
    lab.export(
        "alice",
        "yard",
        &nothing,
        &["--from", "2001-01-01T00:00:00Z", "--to", "2001-01-02T00:00:00Z"],
    )
    .exits(3);
    assert!(!nothing.exists());
}

/// Audio and video of one camera are two streams, each with its m-line; Wireshark opens what it is given.
#[test]
fn a_camera_with_audio_and_video_exports_both_ways() {
    let mut lab = Lab::new();
    lab.customer("alice");
    let muxed = lab.path("hall.mkv");
    #[rustfmt::skip]
    tool("ffmpeg", &[
        "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=3", "-f", "lavfi", "-i",
        "sine=duration=3", "-pix_fmt", "yuv420p", "-c:v", "libx264", "-g", "25", "-c:a", "libopus", text(&muxed),
    ]);
    let sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 0 RTP/AVP 96\n\
               a=rtpmap:96 H264/90000\nm=audio 0 RTP/AVP 97\na=rtpmap:97 opus/48000/2\n";
    lab.camera(Camera::new("hall", "alice", 0).ssrcs(&[41, 42]).sdp(sdp));
    let engine = lab.start();
    let to = format!("rtp://127.0.0.1:{}?pkt_size=1200", lab.port);
    #[rustfmt::skip]
    let arguments = [
        "-v", "error", "-re", "-i", text(&muxed),
        "-map", "0:v", "-c", "copy", "-bsf:v", "h264_mp4toannexb", "-ssrc", "41", "-payload_type", "96", "-f", "rtp", &to,
        "-map", "0:a", "-c", "copy", "-ssrc", "42", "-payload_type", "97", "-f", "rtp", &to,
    ];
    Running::start("ffmpeg", &arguments, lab.path("hall.errors")).finish();
    let last = lab.settle_and_stop(engine);
    assert_eq!(last["received"], last["stored"], "{last}");

    let film = lab.path("hall.h264");
    tool(
        "ffmpeg",
        &[
            "-v",
            "error",
            "-i",
            text(&muxed),
            "-map",
            "0:v",
            "-c",
            "copy",
            text(&film),
        ],
    );
    let out = lab.path("hall.mp4");
    lab.export("alice", "hall", &out, &[]).ok();
    assert_eq!(hashes(&out), hashes(&film));

    let capture = lab.path("hall.pcapng");
    lab.export("alice", "hall", &capture, &[]).ok();
    let rows = rtp_rows(&capture);
    let of = |ssrc: u32| rows.iter().filter(|row| row.ssrc == ssrc).count();
    assert!(of(41) > 75, "video in the capture: {}", of(41));
    assert!(of(42) > 100, "audio in the capture: {}", of(42));
    let identity = lab.identity("alice");
    let listed = harborseal(["list", "--json", "--identity", text(&identity), text(&lab.data())])
        .ok()
        .json();
    assert!(listed.to_string().contains("hall"), "{listed}");
}

struct Row {
    arrival_ns: u128,
    ssrc: u32,
    marker: bool,
}

/// The RTP packets of a capture as tshark understands them.
#[track_caller]
fn rtp_rows(capture: &std::path::Path) -> Vec<Row> {
    #[rustfmt::skip]
    let table = tools::tool("tshark", &[
        "-r", text(capture), "--enable-heuristic", "rtp_udp", "-Y", "rtp", "-T", "fields",
        "-e", "frame.time_epoch", "-e", "rtp.ssrc", "-e", "rtp.marker",
    ]);
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let (seconds, fraction) = fields[0].split_once('.').expect("seconds and nanoseconds");
        let nanoseconds: u128 = format!("{fraction:0<9}").parse().expect("digits");
        let ssrc = u32::from_str_radix(fields[1].trim_start_matches("0x"), 16).expect("hexadecimal");
        let arrival_ns = seconds.parse::<u128>().expect("digits") * 1_000_000_000 + nanoseconds;
        Row {
            arrival_ns,
            ssrc,
            marker: matches!(fields[2], "1" | "True"),
        }
    };
    table.lines().map(row).collect()
}

/// A time as the command line takes it.
fn rfc3339(unix_ns: u128) -> String {
    let (seconds, fraction) = (unix_ns / 1_000_000_000, unix_ns % 1_000_000_000);
    let whole = tool(
        "date",
        &["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%S"],
    );
    format!("{}.{fraction:09}Z", whole.trim())
}
