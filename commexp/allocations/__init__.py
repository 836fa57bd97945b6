"""Allocations: which subsets of the data each worker holds, and codes that recover the full gradient from the workers
that answer. Usable without the rest of commexp:

held = Cyclic(d=3).allocation(8, seed=0)
held.copies, held.loads, held.balance
l = scaled(held, p=0.1) @ gradients           # [M, J] -> [N, J]; the sum over the workers that answer is unbiased
B = Cyclic(d=3).code(8, seed=0)
a = decoding(B, answered)                     # a @ (B @ gradients) is the full sum, [J]; or None
"""

from commexp.allocations.all import All
from commexp.allocations.base import Allocation, Assignment, Balance
from commexp.allocations.codes import decoding, scaled
from commexp.allocations.cyclic import Cyclic
from commexp.allocations.design import Design, difference_set
from commexp.allocations.fractional import FractionalRepetition
from commexp.allocations.from_file import AllocationFile
from commexp.allocations.random import Random
from commexp.allocations.single import Single

__all__ = [
    "All",
    "Allocation",
    "AllocationFile",
    "Assignment",
    "Balance",
    "Cyclic",
    "Design",
    "FractionalRepetition",
    "Random",
    "Single",
    "decoding",
    "difference_set",
    "scaled",
]
