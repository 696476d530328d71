"""DeepSeek's special-token strings, as its published tokenizers spell them.

The bar is U+FF5C and the low line U+2581, so no keyboard types them by accident. A published
file flags only begin, end and pad as `special`; role, tool and reasoning markers are added tokens
that survive `skip_special`, because servers look for them in decoded text. We keep that.
"""

BEGIN_OF_SENTENCE = "<｜begin▁of▁sentence｜>"
END_OF_SENTENCE = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"
USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"
THINK_BEGIN = "<think>"
THINK_END = "</think>"
FIM_BEGIN = "<｜fim▁begin｜>"
FIM_HOLE = "<｜fim▁hole｜>"
FIM_END = "<｜fim▁end｜>"
TOOL_CALLS_BEGIN = "<｜tool▁calls▁begin｜>"
TOOL_CALLS_END = "<｜tool▁calls▁end｜>"
TOOL_CALL_BEGIN = "<｜tool▁call▁begin｜>"
TOOL_CALL_END = "<｜tool▁call▁end｜>"
TOOL_OUTPUTS_BEGIN = "<｜tool▁outputs▁begin｜>"
TOOL_OUTPUTS_END = "<｜tool▁outputs▁end｜>"
TOOL_OUTPUT_BEGIN = "<｜tool▁output▁begin｜>"
TOOL_OUTPUT_END = "<｜tool▁output▁end｜>"
TOOL_SEP = "<｜tool▁sep｜>"

CONTROL_TOKENS = (BEGIN_OF_SENTENCE, END_OF_SENTENCE, PAD)

MARKER_TOKENS = (
    THINK_BEGIN,
    THINK_END,
    FIM_HOLE,
    FIM_BEGIN,
    FIM_END,
    USER,
    ASSISTANT,
    TOOL_CALLS_BEGIN,
    TOOL_CALLS_END,
    TOOL_CALL_BEGIN,
    TOOL_CALL_END,
    TOOL_OUTPUTS_BEGIN,
    TOOL_OUTPUTS_END,
    TOOL_OUTPUT_BEGIN,
    TOOL_OUTPUT_END,
    TOOL_SEP,
)

DEEPSEEK_TOKENS = CONTROL_TOKENS + MARKER_TOKENS
