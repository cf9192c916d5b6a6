pub(super) use super::scalar::*;
