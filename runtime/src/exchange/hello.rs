//! The first words on a connection: who speaks, and what both must agree on before rows mean the same to them.

use super::frame::{BadFrame, Fields, HELLO, PULSE};
use coterie_api::expert_map::RANKS_LIMIT;
use coterie_api::launch::{Activations, Quantization};
use coterie_engine::moe::exchange::ExpertShape;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Parcels there, answers back.
    Parcels,
    /// Signs of life, both ways.
    Pulse,
}

/// How far a rank is with its expert maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// Newest map that it has read.
    pub read: u64,
    /// Newest map of which it holds all that is its own.
    pub loaded: u64,
    /// The map by which it sends.
    pub routing: u64,
}

/// What two ranks must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Digest of the model folder.
    pub model: [u8; 32],
    /// How the weights are held.
    pub quantization: Quantization,
    /// Layers, experts, width of a row.
    pub shape: ExpertShape,
    /// How rows travel.
    pub activations: Activations,
    /// Rows of one step at most.
    pub step_rows: u32,
}

/// The first frame in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What the connection is for.
    pub role: Role,
    /// Who speaks.
    pub from: u16,
    /// Who is meant.
    pub to: u16,
    /// What must be agreed on.
    pub terms: Terms,
    /// How far the speaker is.
    pub versions: Versions,
}

impl Versions {
    /// As bytes.
    pub fn encode(&self) -> [u8; PULSE] {
        let mut bytes = [0; PULSE];
        for (bytes, version) in bytes.chunks_exact_mut(8).zip([self.read, self.loaded, self.routing]) {
            bytes.copy_from_slice(&version.to_le_bytes());
        }
        bytes
    }

    /// From bytes.
    pub fn decode(bytes: &[u8; PULSE]) -> Versions {
        let mut fields = Fields(bytes);
        Versions { read: fields.u64(), loaded: fields.u64(), routing: fields.u64() }
    }
}

impl Hello {
    /// As bytes: role, activations, from, to, layers, experts, quantization, a zero, hidden, step rows, model, versions.
    pub fn encode(&self) -> [u8; HELLO] {
        let Terms { model, quantization, shape, activations, step_rows } = &self.terms;
        let mut bytes = Vec::with_capacity(HELLO);
        bytes.push(match self.role {
            Role::Parcels => 1,
            Role::Pulse => 2,
        });
        bytes.push(match activations {
            Activations::Bf16 => 1,
            Activations::Int8 => 2,
        });
        for number in [self.from, self.to, shape.layers as u16, shape.experts as u16] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.push(match quantization {
            Quantization::None => 1,
            Quantization::Int8 => 2,
            Quantization::Int4 => 3,
        });
        bytes.push(0);
        bytes.extend_from_slice(&(shape.hidden as u32).to_le_bytes());
        bytes.extend_from_slice(&step_rows.to_le_bytes());
        bytes.extend_from_slice(model);
        bytes.extend_from_slice(&self.versions.encode());
        let mut whole = [0; HELLO];
        whole.copy_from_slice(&bytes);
        whole
    }

    /// From bytes.
    pub fn decode(bytes: &[u8; HELLO]) -> Result<Hello, BadFrame> {
        let unknown = |what, byte: u8| BadFrame::Payload(format!("a hello has the unknown {what} {byte}"));
        let role = match bytes[0] {
            1 => Role::Parcels,
            2 => Role::Pulse,
            byte => return Err(unknown("role", byte)),
        };
        let activations = match bytes[1] {
            1 => Activations::Bf16,
            2 => Activations::Int8,
            byte => return Err(unknown("form of activations", byte)),
        };
        let quantization = match bytes[10] {
            1 => Quantization::None,
            2 => Quantization::Int8,
            3 => Quantization::Int4,
            byte => return Err(unknown("quantization", byte)),
        };
        let mut fields = Fields(&bytes[2..]);
        let (from, to) = (fields.u16(), fields.u16());
        let (layers, experts) = (usize::from(fields.u16()), usize::from(fields.u16()));
        let _quantization = fields.u16();
        let (hidden, step_rows) = (fields.u32() as usize, fields.u32());
        let mut model = [0; 32];
        model.copy_from_slice(&bytes[20..52]);
        let mut versions = [0; PULSE];
        versions.copy_from_slice(&bytes[52..]);
        let shape = ExpertShape { layers, experts, hidden };
        let terms = Terms { model, quantization, shape, activations, step_rows };
        Ok(Hello { role, from, to, terms, versions: Versions::decode(&versions) })
    }

    /// Why what `theirs` says does not go with what we would say in return. The sentence names both sides.
    pub fn disagreement(&self, theirs: &Hello) -> Option<String> {
        let (own, other) = (self.from, theirs.from);
        if theirs.to != own {
            return Some(format!(
                "rank {} was sought, and this is rank {own}; compare the peers with the pods",
                theirs.to
            ));
        }
        if usize::from(other) >= RANKS_LIMIT {
            return Some(format!("rank {other} called rank {own}; numbers go to {}", RANKS_LIMIT - 1));
        }
        if other == own {
            return Some(format!(
                "rank {own} was called by a rank of the same number; give each its own --rank"
            ));
        }
        let (ours, theirs) = (&self.terms, &theirs.terms);
        let differ = |what: &str, of_own: String, of_other: String| {
            Some(format!("rank {own} has {what} {of_own}, rank {other} has {of_other}; start both alike"))
        };
        if ours.shape != theirs.shape {
            return differ("layers, experts and width", numbers(&ours.shape), numbers(&theirs.shape));
        }
        if ours.model != theirs.model {
            return differ("a model of digest", hex(&ours.model), hex(&theirs.model));
        }
        if ours.quantization != theirs.quantization {
            let flag = |terms: &Terms| terms.quantization.flag().to_owned();
            return differ("--quantization", flag(ours), flag(theirs));
        }
        if ours.activations != theirs.activations {
            let flag = |terms: &Terms| terms.activations.flag().to_owned();
            return differ("--activations", flag(ours), flag(theirs));
        }
        if ours.step_rows != theirs.step_rows {
            return differ("rows of a step", ours.step_rows.to_string(), theirs.step_rows.to_string());
        }
        None
    }
}

fn numbers(shape: &ExpertShape) -> String {
    format!("{}, {} and {}", shape.layers, shape.experts, shape.hidden)
}

/// As much of a digest as tells two apart.
fn hex(digest: &[u8; 32]) -> String {
    digest[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        let shape = ExpertShape { layers: 61, experts: 256, hidden: 7168 };
        Hello {
            role: Role::Pulse,
            from: 3,
            to: 1,
            terms: Terms {
                model: std::array::from_fn(|at| at as u8),
                quantization: Quantization::Int8,
                shape,
                activations: Activations::Int8,
                step_rows: 512,
            },
            versions: Versions { read: 5, loaded: 4, routing: u64::MAX },
        }
    }

    #[test]
    fn is_read_as_it_was_written() {
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
        for at in [0, 1, 10] {
            let mut bytes = hello().encode();
            bytes[at] = 9;
            assert!(matches!(Hello::decode(&bytes), Err(BadFrame::Payload(_))));
        }
    }

    #[test]
    fn who_does_not_go_together_is_told_why() {
        let ours = Hello { from: 1, to: 3, ..hello() };
        assert_eq!(ours.disagreement(&hello()), None);
        let refused = |change: fn(&mut Hello)| {
            let mut theirs = hello();
            change(&mut theirs);
            ours.disagreement(&theirs).unwrap()
        };
        assert!(refused(|h| h.to = 2).contains("rank 2 was sought, and this is rank 1"));
        assert!(refused(|h| h.from = 1).contains("the same number"));
        assert!(refused(|h| h.from = 1024).contains("rank 1024 called rank 1; numbers go to 1023"));
        assert!(
            refused(|h| h.terms.shape.hidden = 7)
                .contains("rank 1 has layers, experts and width 61, 256 and 7168, rank 3 has 61, 256 and 7;")
        );
        assert!(
            refused(|h| h.terms.model[0] = 255)
                .contains("rank 1 has a model of digest 000102030405, rank 3 has ff0102030405")
        );
        assert!(
            refused(|h| h.terms.quantization = Quantization::None)
                .contains("rank 1 has --quantization int8, rank 3 has none")
        );
        assert!(
            refused(|h| h.terms.activations = Activations::Bf16)
                .contains("rank 1 has --activations int8, rank 3 has bf16")
        );
        assert!(refused(|h| h.terms.step_rows = 9).contains("rows of a step 512, rank 3 has 9"));
    }
}
