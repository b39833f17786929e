//! Rows made of heads: cut, put together, made wider.

use super::Cuda;
use super::memory::CudaTensor;
use coterie_kernels::cuda::device::Device;
use coterie_kernels::cuda::heads::Heads;

impl<D: Device> Cuda<D> {
    /// Of heads of `width` values, those from the first on, so many.
    pub(super) fn part(&self, x: &CudaTensor<D>, width: usize, [first, count]: [usize; 2]) -> CudaTensor<D> {
        let heads = x.width / width;
        let out = self.tensor(x.rows, heads * count);
        self.copy_heads(x, [width, first], &out, [count, 0], [count, 0]);
        out
    }

    /// Heads of `width` values with zeros behind them, up to `wide`.
    pub(super) fn wider(&self, x: &CudaTensor<D>, width: usize, wide: usize) -> CudaTensor<D> {
        let out = self.tensor(x.rows, x.width / width * wide);
        self.copy_heads(x, [width, 0], &out, [wide, 0], [width, wide - width]);
        out
    }

    /// Heads of two parts, with zeros behind each.
    pub(super) fn apart(&self, x: &CudaTensor<D>, parts: [usize; 2], wide: [usize; 2]) -> CudaTensor<D> {
        let [width, wider] = [parts, wide].map(|parts| parts.iter().sum::<usize>());
        let out = self.tensor(x.rows, x.width / width * wider);
        for (part, [first, to]) in [[0, 0], [parts[0], wide[0]]].into_iter().enumerate() {
            let zeros = wide[part] - parts[part];
            self.copy_heads(x, [width, first], &out, [wider, to], [parts[part], zeros]);
        }
        out
    }

    /// Behind every head of `a` that of `b`.
    pub(super) fn side_by_side(&self, a: &CudaTensor<D>, b: &CudaTensor<D>, heads: usize) -> CudaTensor<D> {
        let [of_a, of_b] = [a.width / heads, b.width / heads];
        let out = self.tensor(a.rows, a.width + b.width);
        self.copy_heads(a, [of_a, 0], &out, [of_a + of_b, 0], [of_a, 0]);
        self.copy_heads(b, [of_b, 0], &out, [of_a + of_b, of_a], [of_b, 0]);
        out
    }

    /// Of every head of x, of a width, values from one on, to every head of `out`, of a width, from one on: so many, and so
    /// many zeros behind them.
    fn copy_heads(
        &self,
        x: &CudaTensor<D>,
        [x_width, x_first]: [usize; 2],
        out: &CudaTensor<D>,
        [out_width, out_first]: [usize; 2],
        [count, zeros]: [usize; 2],
    ) {
        let heads = (x.rows * (x.width / x_width)) as u64;
        let [x_width, x_first, out_width, out_first, count, zeros] =
            [x_width, x_first, out_width, out_first, count, zeros].map(|size| size as u32);
        let heads = Heads {
            x: x.address(),
            out: out.address(),
            heads,
            x_width,
            x_first,
            out_width,
            out_first,
            count,
            zeros,
        };
        self.launch(&heads.launch());
    }
}
