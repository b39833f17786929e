//! One sequence of a paged attention computed in one prefill, token by token, in chunks, and beside other sequences.

use coterie_kernels::cpu::attention::Sequence;
use coterie_kernels::cpu::isa::Isa;
use coterie_kernels::cpu::pool::Pool;

use super::random::Random;

/// Tokens of the sequence, and those of the longest beside it.
pub const TOKENS: usize = 530;
/// Blocks of 16 of each.
pub const BLOCKS: usize = 34;

/// Fails unless every part has the bits of the whole. `q` has [`TOKENS`] rows, an answer `out_width` values a row; the
/// sequence's blocks are `mine`, and `other` are full as well. `attend` computes the answers to queries of sequences.
pub fn equal_the_whole(
    random: &mut Random,
    q: &[f32],
    out_width: usize,
    [mine, other]: [&[u32]; 2],
    attend: impl Fn(&Pool, &mut [f32], &[f32], &[Sequence<'_>]),
) {
    let width = q.len() / TOKENS;
    let bits = |out: &[f32]| out.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    for &isa in Isa::available() {
        let pools = [Pool::with_isa(1, isa), Pool::with_isa(3, isa)];
        let run = |pool: &Pool, from: usize, to: usize| {
            let mut out = vec![f32::NAN; (to - from) * out_width];
            let sequence = Sequence { rows: 0..to - from, block_table: mine, context: to };
            attend(pool, &mut out, &q[from * width..to * width], &[sequence]);
            bits(&out)
        };
        let whole = run(&pools[0], 0, TOKENS);
        for pool in &pools {
            assert!(run(pool, 0, TOKENS) == whole, "{isa:?}: threads");
            let by_token: Vec<u32> = (0..TOKENS).flat_map(|p| run(pool, p, p + 1)).collect();
            assert!(by_token == whole, "{isa:?}: token by token");
            let cuts = [0, 1, 100, 256, 257, 400, TOKENS];
            let in_chunks: Vec<u32> = cuts.windows(2).flat_map(|cut| run(pool, cut[0], cut[1])).collect();
            assert!(in_chunks == whole, "{isa:?}: chunks of a prefill");
        }
        let many: Vec<Sequence<'_>> = (0..30)
            .map(|i| Sequence { rows: i..i + 1, block_table: other, context: 17 * (i + 1) })
            .chain([Sequence { rows: 30..31, block_table: mine, context: TOKENS }])
            .collect();
        let mut qs = random.values(30 * width);
        qs.extend(&q[(TOKENS - 1) * width..]);
        let mut out = vec![f32::NAN; 31 * out_width];
        attend(&pools[1], &mut out, &qs, &many);
        assert!(bits(&out[30 * out_width..]) == whole[(TOKENS - 1) * out_width..], "{isa:?}: beside others");
    }
}
