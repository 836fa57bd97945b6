"""Compressors: from vectors to messages and back. Usable on plain tensors, without the rest of commexp:

codec = ErrorFeedback(RegTopK(k=0.01))
message = codec.encode(gradients)             # [W, J] -> Message
aggregate = codec.reduce(message, weights)    # sum_n w_n sent_n: [J]
codec.feedback(aggregate, weights)
"""

from commexp.compressors.base import Compressor, Message
from commexp.compressors.error_feedback import ErrorFeedback
from commexp.compressors.none import NoCompression
from commexp.compressors.regtopk import RegTopK
from commexp.compressors.sparse import Sparse
from commexp.compressors.topk import TopK

__all__ = ["Compressor", "ErrorFeedback", "Message", "NoCompression", "RegTopK", "Sparse", "TopK"]
