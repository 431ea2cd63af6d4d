//! Each trouble with Redis that `docs/redis-trouble.md` lists, and what it says of it: for whoever pushes, for twenty
//! subscribers at once, for what is under way, for the operator, and for the processor.

mod place;

mod line;
mod narrow;
mod one;
mod planned;
mod refusing;
mod unreachable;
