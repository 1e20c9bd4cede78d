//! Where a dialogue is among the steps of its script. Must never know what has come.

use std::ops::Deref;
use std::sync::Arc;

use super::program::{Action, Block, Step};

/// Where a dialogue is in a block.
struct Frame {
    block: Block,
    next: usize,
    /// How often the block is begun again.
    rounds: u64,
}

/// The place of a dialogue.
pub(super) struct Cursor {
    /// The blocks that the dialogue is in, the innermost one last.
    frames: Vec<Frame>,
    /// The parts of an `AnyOrder` that are not done yet, of the innermost one last, each with the
    /// number of blocks around it.
    open_orders: Vec<(usize, Vec<Block>)>,
}

/// A step, which the dialogue may leave meanwhile.
pub(super) struct HeldStep {
    block: Block,
    index: usize,
}

impl Deref for HeldStep {
    type Target = Step;

    fn deref(&self) -> &Step {
        &self.block[self.index]
    }
}

impl Cursor {
    pub(super) fn new(steps: &Block) -> Self {
        let frame = Frame { block: Arc::clone(steps), next: 0, rounds: 0 };
        Self { frames: vec![frame], open_orders: Vec::new() }
    }

    /// The step at hand; None at the end of a block.
    pub(super) fn step(&self) -> Option<&Step> {
        let frame = self.frames.last()?;
        frame.block.get(frame.next)
    }

    /// The same, to keep.
    pub(super) fn held_step(&self) -> Option<HeldStep> {
        let frame = self.frames.last()?;
        frame.block.get(frame.next)?;
        Some(HeldStep { block: Arc::clone(&frame.block), index: frame.next })
    }

    /// Whether the script is played.
    pub(super) fn is_over(&self) -> bool {
        self.frames.is_empty()
    }

    /// The step at hand is over.
    pub(super) fn advance(&mut self) {
        innermost(&mut self.frames).next += 1;
    }

    /// The innermost block is over: it begins again, or what is around it goes on.
    pub(super) fn end_block(&mut self) {
        let frame = innermost(&mut self.frames);
        if frame.rounds > 0 {
            frame.rounds -= 1;
            frame.next = 0;
            return;
        }
        self.frames.pop();
    }

    /// Goes into a block that is repeated. The step at hand is over with its last round.
    pub(super) fn repeat(&mut self, block: &Block, rounds: u64) {
        self.advance();
        self.frames.push(Frame { block: Arc::clone(block), next: 0, rounds: rounds - 1 });
    }

    /// The step at hand is an `AnyOrder` of these parts, all of which are left unless it was begun.
    pub(super) fn begin_order(&mut self, parts: &[Block]) {
        let depth = self.frames.len();
        if self.open_orders.last().is_none_or(|(at, _)| *at != depth) {
            self.open_orders.push((depth, parts.to_vec()));
        }
    }

    /// The parts that are left of the innermost `AnyOrder`.
    pub(super) fn order(&self) -> &[Block] {
        self.open_orders.last().map_or(&[], |(_, left)| left)
    }

    /// The parts of the choice at hand; None if the step at hand is none.
    pub(super) fn choice(&self) -> Option<Vec<Block>> {
        match &self.step()?.action {
            Action::Either(parts) | Action::RepeatUntilEnd(parts) => Some(parts.clone()),
            Action::AnyOrder(_) => Some(self.order().to_vec()),
            _ => None,
        }
    }

    /// Goes on behind the first step of a part of the choice at hand, which is over if none is left
    /// to choose.
    pub(super) fn choose(&mut self, index: usize, part: &Block) {
        let frame = innermost(&mut self.frames);
        let is_last = match (&frame.block[frame.next].action, self.open_orders.last_mut()) {
            (Action::AnyOrder(_), Some((_, left))) => {
                left.remove(index);
                let is_last = left.is_empty();
                if is_last {
                    self.open_orders.pop();
                }
                is_last
            }
            (Action::RepeatUntilEnd(parts), _) => index + 1 == parts.len(),
            _ => true,
        };
        if is_last {
            frame.next += 1;
        }
        self.frames.push(Frame { block: Arc::clone(part), next: 1, rounds: 0 });
    }

    /// Whether no step follows the one at hand.
    pub(super) fn is_at_last(&self) -> bool {
        let is_last = |frame: &Frame| frame.rounds == 0 && frame.next == frame.block.len();
        let Some((inner, outer)) = self.frames.split_last() else { return false };
        inner.rounds == 0 && inner.next + 1 == inner.block.len() && outer.iter().all(is_last)
    }

    /// The number of the last step, if nothing but the end of the dialogue follows the step at hand.
    pub(super) fn ends_behind(&self) -> Option<usize> {
        let mut last = self.step()?.number;
        let mut skipped = 1;
        for frame in self.frames.iter().rev() {
            for step in frame.block.iter().skip(frame.next + skipped) {
                if !matches!(step.action, Action::ShutdownWrite | Action::Close | Action::Reset) {
                    return None;
                }
                last = step.number;
            }
            if frame.rounds > 0 {
                return None;
            }
            skipped = 0;
        }
        Some(last)
    }
}

fn innermost(frames: &mut [Frame]) -> &mut Frame {
    frames.last_mut().expect("a step is in a block")
}
