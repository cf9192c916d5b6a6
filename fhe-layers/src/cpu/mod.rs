//! The engine of this crate's kernels: scalar, AVX2 and AVX-512 code on the current rayon pool.

use crate::engine::{LayerEngine, MaskSink};
use crate::error::Result;
use crate::form::Widths;
use crate::instance::Instance;
use crate::kernels::Isa;
use crate::server::{
    PrepareOptions, PreparedModel, RawRound, ServerSession, ServerWeights, TableForm, WordQuery, WordsJob,
    word_half,
};
use crate::words::WordReply;
use std::ops::Range;
use std::sync::Arc;

/// Tables in one form, weights packed for one instruction set.
///
/// [`ServerWeights`] and [`PreparedModel`] are its weights and tables; programs that save, load or expand tables use them
/// directly. The instruction set of the mask half is that of the instance.
#[derive(Clone, Copy, Debug)]
pub struct CpuEngine {
    isa: Isa,
    form: TableForm,
}

impl CpuEngine {
    /// With the instruction set of [`Isa::active`].
    ///
    /// # Errors
    /// An instruction set that this processor lacks.
    pub fn new(form: TableForm) -> Result<Self> {
        Ok(Self { isa: Isa::active()?, form })
    }

    /// With a named instruction set.
    ///
    /// # Errors
    /// As [`CpuEngine::new`].
    pub fn with_isa(form: TableForm, isa: Isa) -> Result<Self> {
        Ok(Self { isa: isa.require()?, form })
    }
}

impl LayerEngine for CpuEngine {
    type Tables = PreparedModel;
    type Weights = ServerWeights;

    fn load(&self, instance: &Instance, rounds: &[RawRound<'_>]) -> Result<ServerWeights> {
        ServerWeights::with_isa(instance.layout(), rounds, self.isa)
    }

    fn prepare(
        &self,
        instance: &Arc<Instance>,
        weights: &Arc<ServerWeights>,
        options: &PrepareOptions<'_>,
    ) -> Result<PreparedModel> {
        PreparedModel::prepare(Arc::clone(instance), Arc::clone(weights), self.form, options)
    }

    fn shared_masks(
        &self,
        tables: &PreparedModel,
        session: &ServerSession,
        blocks: Range<usize>,
    ) -> Result<Vec<Vec<u8>>> {
        tables.shared_masks(session, blocks)
    }

    fn mask_half(
        &self,
        tables: &PreparedModel,
        jobs: &[WordsJob<'_>],
        blocks: Range<usize>,
        keep_on: &(dyn Fn() -> bool + Sync),
        sink: &MaskSink<'_>,
    ) -> Result<()> {
        tables.mask_words(jobs, blocks, keep_on, sink)
    }

    fn body_half(
        &self,
        weights: &ServerWeights,
        round: usize,
        queries: &[WordQuery<'_>],
        widths: Widths,
    ) -> Result<Vec<WordReply>> {
        word_half(weights, round, queries, widths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::conformance;

    #[test]
    fn every_instruction_set_and_table_form_conforms() {
        for isa in Isa::supported() {
            for form in [TableForm::Ntt, TableForm::Compact] {
                let engine = CpuEngine::with_isa(form, isa).unwrap();
                conformance::matches_the_reference(&engine, isa);
                conformance::matches_the_portable_code(&engine, isa);
            }
        }
    }
}
