//! Products of rows with matrices: one for all rows, one an expert, one a head.

use super::Cuda;
use super::memory::{Buffer, CudaTensor};
use super::weights::{CudaMatrix, Form, STEP};
use coterie_kernels::cuda::dense::Dense;
use coterie_kernels::cuda::device::Device;
use coterie_kernels::cuda::launch::Address;
use coterie_kernels::cuda::matmul::{Format, Product, Tiles};
use coterie_kernels::cuda::rows::{Gather, Narrow};
use coterie_kernels::cuda::tiles::Kind;

/// The addresses of matrices: of all values, then of all scales.
fn addresses<D: Device>(w: &[&CudaMatrix<D>]) -> Vec<Address> {
    let values = w.iter().map(|w| w.values());
    values.chain(w.iter().map(|w| w.scales())).collect()
}

/// What products of several matrices have in common.
struct Rows {
    /// bf16 rows, made longer by zeros.
    x: Address,
    order: Address,
    /// Where each matrix's rows begin; none if there is one matrix.
    offsets: Address,
    rows: usize,
}

impl<D: Device> Cuda<D> {
    /// What a product is cut into.
    pub(super) fn tiles_of(&self, product: &Product, format: Format, pair: bool) -> Tiles {
        let [n, k, rows, matrices] =
            [product.n, product.k, product.rows, product.experts].map(|size| size as usize);
        self.tiles.choose(Kind { format, pair, n, k }, rows, matrices)
    }

    /// `x` as products read it.
    pub(super) fn narrow(&self, x: &CudaTensor<D>, rows: usize, width: usize) -> Buffer<D> {
        let padded = width.next_multiple_of(STEP);
        let out = self.spare.take(rows * padded * 2);
        let narrow =
            Narrow { x: x.address(), out: out.address(), width: width as u32, padded: padded as u32 };
        self.launch(&narrow.launch(rows as u32));
        out
    }

    /// Rows times matrices that begin at the addresses `[values, scales]` list, all of the form of `w`.
    fn product(
        &self,
        rows: &Rows,
        matrices: usize,
        [weights, scales]: [Address; 2],
        w: &CudaMatrix<D>,
        out: Address,
    ) {
        let (of_w, format) = w.product();
        let product = Product {
            x: rows.x,
            order: rows.order,
            offsets: rows.offsets,
            weights,
            scales,
            out,
            rows: rows.rows as u32,
            experts: matrices as u32,
            ..of_w
        };
        let tiles = self.tiles_of(&product, format, false);
        self.launch(&product.launch_on(&*self.device, format, false, tiles));
    }

    pub(super) fn matmuls<const N: usize>(
        &self,
        x: &CudaTensor<D>,
        w: [&CudaMatrix<D>; N],
    ) -> [CudaTensor<D>; N] {
        let narrow =
            w.iter().any(|w| matches!(w.form, Form::Product { .. })).then(|| self.narrow(x, x.rows, x.width));
        w.map(|w| {
            let out = self.tensor(x.rows, w.outputs);
            match (w.form, &narrow) {
                (Form::Gate { bf16 }, _) => {
                    let [rows, n, k] = [x.rows, w.outputs, w.inputs].map(|size| size as u32);
                    let dense = Dense { x: x.address(), w: w.values(), out: out.address(), rows, n, k };
                    self.launch(&dense.launch(bf16));
                }
                (Form::Product { .. }, Some(narrow)) => {
                    let rows = Rows { x: narrow.address(), order: 0, offsets: 0, rows: x.rows };
                    self.product(&rows, 1, w.addresses(), w, out.address());
                }
                (Form::Product { .. }, None) => unreachable!("rows were rounded for the products"),
            }
            out
        })
    }

    /// Rows `offsets[i]..offsets[i + 1]`, counted by `order` if it is not 0, times matrix i: one launch for neighbours of
    /// one format. `addresses` are those of the matrices on the device, of all values and then of all scales.
    fn products(
        &self,
        [x, order]: [Address; 2],
        offsets: &[u32],
        [on_device, addresses]: [Address; 2],
        w: &[&CudaMatrix<D>],
        out: &CudaTensor<D>,
    ) {
        let array = |at: usize| addresses + (at * size_of::<Address>()) as Address;
        let mut first = 0;
        for of_form in w.chunk_by(|a, b| a.form == b.form) {
            let last = first + of_form.len();
            let rows = Rows {
                x,
                order,
                offsets: on_device + (first * size_of::<u32>()) as Address,
                rows: (offsets[last] - offsets[first]) as usize,
            };
            if rows.rows > 0 {
                let lists = [array(first), array(w.len() + first)];
                self.product(&rows, of_form.len(), lists, of_form[0], out.address());
            }
            first = last;
        }
    }

    pub(super) fn grouped<const N: usize>(
        &self,
        x: &CudaTensor<D>,
        offsets: &[u32],
        w: [&[&CudaMatrix<D>]; N],
    ) -> [CudaTensor<D>; N] {
        if let [0, rows] = *offsets
            && rows as usize == x.rows
        {
            // One matrix for all rows knows its own addresses.
            return self.matmuls(x, w.map(|w| w[0]));
        }
        let (narrow, on_device) = (self.narrow(x, x.rows, x.width), self.spare.with(offsets));
        w.map(|w| {
            let out = self.tensor(x.rows, w[0].outputs);
            let addresses = self.spare.with(&addresses(w));
            let lists = [on_device.address(), addresses.address()];
            self.products([narrow.address(), 0], offsets, lists, w, &out);
            out
        })
    }

    /// Heads are put one behind the other for the products, as the rows of an expert are, and brought back.
    pub(super) fn heads_times(&self, x: &CudaTensor<D>, w: &[CudaMatrix<D>]) -> CudaTensor<D> {
        let (rows, heads, outputs) = (x.rows, w.len(), w[0].outputs);
        let narrow = self.narrow(x, rows * heads, w[0].inputs);
        let places = |rows: usize, columns: usize| {
            let place = move |i: usize| (i % rows * columns + i / rows) as u32;
            (0..rows * columns).map(place).collect::<Vec<u32>>()
        };
        let (there, back) = (self.spare.with(&places(rows, heads)), self.spare.with(&places(heads, rows)));
        let offsets: Vec<u32> = (0..=heads).map(|head| (head * rows) as u32).collect();
        let on_device = self.spare.with(&offsets);
        let by_head = self.tensor(heads * rows, outputs);
        let matrices: Vec<&CudaMatrix<D>> = w.iter().collect();
        let x = [narrow.address(), there.address()];
        let lists = [on_device.address(), self.list(w[0].values(), addresses(&matrices))];
        self.products(x, &offsets, lists, &matrices, &by_head);
        let out = self.tensor(rows, heads * outputs);
        let gather = Gather {
            x: by_head.address(),
            rows: back.address(),
            out: out.address(),
            stride: outputs as u32,
            width: outputs as u32,
        };
        self.launch(&gather.launch((rows * heads) as u32, false));
        out
    }
}
