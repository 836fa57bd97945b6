"""Compressors: from vectors to messages and back. Usable on plain tensors, without the rest of commexp:

codec = ErrorFeedback(RegTopK(k=0.01))
message = codec.encode(gradients)             # [W, J] -> Message
aggregate = codec.reduce(message, weights)    # sum_n w_n sent_n: [J]
codec.feedback(aggregate, weights)
"""

from commexp.compressors.base import CodecContext, Compressor, CorruptMessageError, Message, Wrapper
from commexp.compressors.bf16 import BF16
from commexp.compressors.chunked import Chunked
from commexp.compressors.columns import Columns, adjoined, places_of
from commexp.compressors.composition import Composition
from commexp.compressors.dct import DCT, Transform
from commexp.compressors.error_feedback import ErrorFeedback, Feedback
from commexp.compressors.fp4 import FP4
from commexp.compressors.fp8 import FP8
from commexp.compressors.fp16 import FP16
from commexp.compressors.grouped import Group, Grouped
from commexp.compressors.int8 import Int8
from commexp.compressors.kbit import KBit
from commexp.compressors.layerwise import Layerwise
from commexp.compressors.natural import Natural
from commexp.compressors.none import NoCompression
from commexp.compressors.onebit import OneBit
from commexp.compressors.powersgd import PowerSGD
from commexp.compressors.qsgd import QSGD
from commexp.compressors.randk import RandK
from commexp.compressors.regtopk import RegTopK
from commexp.compressors.sign import Sign
from commexp.compressors.sparse import Entries, Sparse
from commexp.compressors.stochastic import Stochastic
from commexp.compressors.terngrad import TernGrad
from commexp.compressors.threshold import Threshold
from commexp.compressors.topk import TopK

__all__ = [
    "BF16",
    "DCT",
    "FP4",
    "FP8",
    "FP16",
    "QSGD",
    "Chunked",
    "CodecContext",
    "Columns",
    "Composition",
    "Compressor",
    "CorruptMessageError",
    "Entries",
    "ErrorFeedback",
    "Feedback",
    "Group",
    "Grouped",
    "Int8",
    "KBit",
    "Layerwise",
    "Message",
    "Natural",
    "NoCompression",
    "OneBit",
    "PowerSGD",
    "RandK",
    "RegTopK",
    "Sign",
    "Sparse",
    "Stochastic",
    "TernGrad",
    "Threshold",
    "TopK",
    "Transform",
    "Wrapper",
    "adjoined",
    "places_of",
]
