"""The words that parent and candidate exchange over the run's private channel, one frame each.

    parent -> child   setup                    JSON: source, function, check
    child  -> parent  READY                    the source ran to its end
                      ERROR|MEMORY detail      it did not
    parent -> child   CALL nonce arguments     only now, one at a time
    child  -> parent  VALUE|ERROR|MEMORY nonce payload
    parent -> child   FINISH nonce             flush, and say so
    child  -> parent  VALUE nonce

A judge's child may send `ASK arguments` while it works on a CALL, and gets VALUE or ERROR back.
The nonce is drawn for each request and sent after the candidate's code has returned from the one
before, so bytes written in advance, or blindly, never pass for an answer.
"""

NONCE_BYTES = 16

READY = b"R"
VALUE = b"V"
ERROR = b"E"
MEMORY = b"M"
ASK = b"Q"
CALL = b"C"
FINISH = b"F"

MAX_DETAIL = 300
