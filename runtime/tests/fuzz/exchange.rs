//! What other ranks send, or whoever says that he is one.

use crate::fuzz::{Target, run};
use coterie_engine::moe::exchange::{ExpertShape, Parcel, check};
use coterie_runtime::exchange::frame::{BadFrame, HEADER, HELLO, Header, Kind, PULSE};
use coterie_runtime::exchange::hello::{Hello, Versions};
use coterie_runtime::exchange::limits::Limits;
use coterie_runtime::exchange::parcel_frame;

const LIMITS: Limits =
    Limits { shape: ExpertShape { layers: 3, experts: 6, hidden: 4 }, row_bytes: 8, step_rows: 8 };

/// Frames one behind the other.
#[test]
fn exchange_frames() {
    let target = Target {
        name: "exchange_frames",
        inputs: 20_000,
        json: false,
        words: &["COEX\u{1}\0", "\u{1}", "\u{5}\u{1}"],
        repair: |bytes| {
            // Most damage would end at the first bytes.
            let count = bytes.len().min(6);
            bytes[..count].copy_from_slice(&b"COEX\x01\0"[..count]);
        },
        // However long a frame says that it is.
        memory: |input| (64 << 10) + 8 * input,
    };
    run(&target, |input| {
        let (mut rest, mut parcel, mut head) = (input, Parcel::default(), Vec::new());
        let mut frames = String::new();
        loop {
            match frame(&mut rest, &mut parcel, &mut head) {
                Ok(kind) if frames.len() < 30 => frames += &format!("{kind:?} "),
                Ok(_) => {}
                Err(why) => return frames + &why.to_string(),
            }
        }
    });
}

fn frame(rest: &mut &[u8], parcel: &mut Parcel, head: &mut Vec<u8>) -> Result<Kind, BadFrame> {
    let mut fill = |out: &mut [u8]| {
        let (first, behind) =
            rest.split_at_checked(out.len()).ok_or_else(|| BadFrame::Payload("the end".to_owned()))?;
        out.copy_from_slice(first);
        *rest = behind;
        Ok(())
    };
    let mut header = [0; HEADER];
    fill(&mut header)?;
    let header = Header::decode(&header)?;
    let follows = LIMITS.check(&header)?;
    match header.kind {
        Kind::Parcel => {
            parcel_frame::read(&header, &LIMITS, parcel, head, fill)?;
            assert_eq!(check(parcel, &LIMITS.shape, LIMITS.row_bytes), Ok(()));
        }
        Kind::Hello | Kind::Welcome => {
            let mut bytes = [0; HELLO];
            fill(&mut bytes)?;
            let hello = Hello::decode(&bytes)?;
            assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
            if let Some(reason) = hello.disagreement(&Hello { from: hello.to, to: hello.from, ..hello }) {
                return Err(BadFrame::Payload(reason));
            }
        }
        Kind::Pulse => {
            let mut bytes = [0; PULSE];
            fill(&mut bytes)?;
            assert_eq!(Versions::decode(&bytes).encode(), bytes);
        }
        Kind::Answer | Kind::Missing | Kind::Refused => fill(&mut vec![0; follows])?,
    }
    Ok(header.kind)
}
