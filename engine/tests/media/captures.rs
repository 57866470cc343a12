//! Capture files: tshark, Wireshark's other face, reads every packet back.

use crate::tools::{encode, export, run, shoot_with_ffmpeg, text};

#[test]
fn wireshark_reads_every_packet_with_good_checksums_and_times() {
    let folder = tempfile::tempdir().unwrap();
    let clip = encode(
        folder.path(),
        "clip",
        "320x240",
        50,
        &["-c:v", "libx264", "-g", "25"],
    );
    let shot = shoot_with_ffmpeg(&clip.movie, &[]);
    let out = folder.path().join("out.pcapng");
    let report = export(&out, &shot);
    assert_eq!(report.packets, shot.packets.len() as u64);
    let fields = [
        "-r",
        text(&out),
        "-o",
        "ip.check_checksum:TRUE",
        "-o",
        "udp.check_checksum:TRUE",
        "-d",
        "udp.port==5004,rtp",
        "-d",
        "udp.port==5005,rtcp",
        "-T",
        "fields",
        "-E",
        "separator=,",
        "-e",
        "frame.time_epoch",
        "-e",
        "rtp.seq",
        "-e",
        "rtcp.pt",
        "-e",
        "ip.checksum.status",
        "-e",
        "udp.checksum.status",
    ];
    let output = run("tshark", &fields);
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<Vec<&str>> = lines.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), shot.packets.len());
    for (line, packet) in lines.iter().zip(&shot.packets) {
        let (seconds, nanoseconds) = (
            packet.arrival_ns / 1_000_000_000,
            packet.arrival_ns % 1_000_000_000,
        );
        assert_eq!(line[0], format!("{seconds}.{nanoseconds:09}"));
        if packet.rtcp {
            assert!(!line[2].is_empty(), "RTCP is read as such");
        } else {
            assert_eq!(line[1], packet.number().to_string());
        }
        assert_eq!(line[line.len() - 2..], ["1", "1"], "checksums are good");
    }
}
