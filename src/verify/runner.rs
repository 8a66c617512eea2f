//! Runs one case after the other and keeps what went wrong.

use super::{Miss, Options, Problem};
use crate::backend::{Backend, Memory};
use crate::error::{Error, Result};
use crate::operations::{Draw, Inputs, Operation};

/// Runs the cases of one kernel on `backend`, a cross-check.
pub(super) struct Runner<B> {
    pub(super) backend: B,
    pub(super) cases: usize,
    pub(super) misses: Vec<Miss>,
    seed: u64,
    random_shapes: usize,
    many_workgroups: bool,
    stop_at_first_miss: bool,
}

/// Shapes of more elements than this are there for the number of their workgroups.
const MANY_ELEMENTS: usize = 1 << 20;

impl<B: Memory> Runner<B> {
    pub(super) fn new(backend: B, options: &Options) -> Self {
        let Options { cases: random_shapes, seed, many_workgroups, stop_at_first_miss, .. } = *options;
        Self { backend, cases: 0, misses: Vec::new(), seed, random_shapes, many_workgroups, stop_at_first_miss }
    }

    /// The edge shapes, then random ones up to `most` in each dimension, drawn as they come up: there may be more than memory holds.
    pub(super) fn shapes<'e, const D: usize>(
        &self,
        edges: &'e [[usize; D]],
        most: [usize; D],
    ) -> impl Iterator<Item = [usize; D]> + use<'e, B, D> {
        let mut draw = Draw::new(self.seed, self.cases as u64);
        let random = (0..self.random_shapes).map(move |_| most.map(|most| draw.size(most)));
        let many_workgroups = self.many_workgroups;
        let wanted = move |shape: &&[usize; D]| many_workgroups || shape.iter().product::<usize>() <= MANY_ELEMENTS;
        edges.iter().filter(wanted).copied().chain(random)
    }

    /// Runs an operation at its edge sizes and at random ones, and looks whether it refuses sizes of zero.
    ///
    /// # Errors
    /// A lost device. All other errors are misses.
    pub(super) fn operation<O: Operation>(&mut self) -> Result<()>
    where
        B: Backend,
    {
        let domain = O::DOMAIN;
        let mut sizes_of = Draw::new(self.seed, self.cases as u64);
        let random = (0..self.random_shapes).map(|_| domain.most.iter().map(|&most| sizes_of.size(most)).collect());
        let many_workgroups = self.many_workgroups;
        let wanted = |sizes: &&&[usize]| many_workgroups || sizes.iter().product::<usize>() <= MANY_ELEMENTS;
        let edges = domain.edges.iter().filter(wanted).map(|sizes| sizes.to_vec());
        for sizes in edges.chain(random) {
            if self.has_stopped() {
                return Ok(());
            }
            let mut draw = self.next_draw();
            let operation = O::draw(&sizes, &mut draw);
            match self.call(&operation, draw) {
                Err(error @ Error::DeviceLost(_)) => return Err(error),
                Err(error) => self.miss(O::NAME, format!("{operation:?}"), Problem::Failed(error)),
                Ok(()) => {}
            }
        }
        for (i, name) in domain.sizes.iter().enumerate() {
            if self.has_stopped() {
                return Ok(());
            }
            let mut sizes = vec![1; domain.sizes.len()];
            sizes[i] = 0;
            let mut draw = self.next_draw();
            let operation = O::draw(&sizes, &mut draw);
            match self.call(&operation, draw) {
                Err(Error::Shape { .. } | Error::InvalidValue { .. }) => {}
                Err(error @ Error::DeviceLost(_)) => return Err(error),
                Err(error) => self.miss(O::NAME, format!("{name} 0"), Problem::Failed(error)),
                Ok(()) => self.miss(O::NAME, format!("{name} 0"), Problem::Accepted),
            }
        }
        Ok(())
    }

    fn call<O: Operation>(&mut self, operation: &O, draw: Draw) -> Result<()>
    where
        B: Backend,
    {
        let mut step = operation.prepare(&mut Inputs { backend: &mut self.backend, draw })?;
        step(&mut self.backend)
    }

    fn next_draw(&mut self) -> Draw {
        self.cases += 1;
        Draw::new(self.seed, self.cases as u64)
    }

    /// Runs one case; its inputs depend on the seed and its place among the cases only.
    ///
    /// # Errors
    /// A lost device. All other errors are misses.
    pub(super) fn case(
        &mut self,
        operation: &'static str,
        case: impl std::fmt::Display,
        body: impl FnOnce(&mut B, &mut Draw) -> Result<()>,
    ) -> Result<()> {
        if self.has_stopped() {
            return Ok(());
        }
        match self.run(body) {
            Ok(()) => Ok(()),
            Err(error @ Error::DeviceLost(_)) => Err(error),
            Err(error) => {
                self.miss(operation, case, Problem::Failed(error));
                Ok(())
            }
        }
    }

    fn has_stopped(&self) -> bool {
        self.stop_at_first_miss && !self.misses.is_empty()
    }

    fn run(&mut self, body: impl FnOnce(&mut B, &mut Draw) -> Result<()>) -> Result<()> {
        let mut draw = self.next_draw();
        body(&mut self.backend, &mut draw)
    }

    fn miss(&mut self, operation: &'static str, case: impl std::fmt::Display, problem: Problem) {
        self.misses.push(Miss { operation, case: case.to_string(), problem });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Cpu;

    #[test]
    fn as_many_shapes_as_anybody_asks_for_start_at_once() {
        let runner = |cases| Runner::new(Cpu::<f32>::new(), &Options { cases, ..Options::default() });
        let few: Vec<_> = runner(3).shapes(&[[1, 1], [64, 64]], [9, 70]).collect();
        assert_eq!((few.len(), &few[..2]), (5, [[1, 1], [64, 64]].as_slice()));
        let endless: Vec<_> = runner(usize::MAX).shapes(&[[1, 1], [64, 64]], [9, 70]).take(5).collect();
        assert_eq!(endless, few, "the same ones first");
    }
}
