// C functions of MLA attention.
#include "abi.h"
#include "attention.h"

RQ_API int rq_attention_forward(int isa, int threads, int dtype, int64_t batch, int64_t tokens,
                                int64_t heads, int64_t nope, int64_t rope, int64_t value,
                                float softmax_scale, const void* q, const void* kv,
                                const void* k_rope, const float* cos, const float* sin,
                                const int32_t* document_start, const int32_t* gap_start,
                                const int32_t* gap_end, int angles_per_row, void* out, float* lse) {
  rq::AttentionArgs args = {};
  args.dtype = dtype;
  args.batch = batch;
  args.tokens = tokens;
  args.heads = heads;
  args.nope = nope;
  args.rope = rope;
  args.value = value;
  args.softmax_scale = softmax_scale;
  args.q = q;
  args.kv = kv;
  args.k_rope = k_rope;
  args.cos = cos;
  args.sin = sin;
  args.document_start = document_start;
  args.gap_start = gap_start;
  args.gap_end = gap_end;
  args.angles_per_row = angles_per_row != 0;
  args.out = out;
  args.lse = lse;
  RQ_DISPATCH(isa, attention_forward(args, threads))
}

RQ_API int rq_attention_backward(int isa, int threads, int dtype, int64_t batch, int64_t tokens,
                                 int64_t heads, int64_t nope, int64_t rope, int64_t value,
                                 float softmax_scale, const void* q, const void* kv,
                                 const void* k_rope, const float* cos, const float* sin,
                                 const int32_t* document_start, const int32_t* gap_start,
                                 const int32_t* gap_end, int angles_per_row, const void* out,
                                 const float* lse, const void* grad_out, void* grad_q,
                                 void* grad_kv, void* grad_k_rope) {
  rq::AttentionArgs args = {};
  args.dtype = dtype;
  args.batch = batch;
  args.tokens = tokens;
  args.heads = heads;
  args.nope = nope;
  args.rope = rope;
  args.value = value;
  args.softmax_scale = softmax_scale;
  args.q = q;
  args.kv = kv;
  args.k_rope = k_rope;
  args.cos = cos;
  args.sin = sin;
  args.document_start = document_start;
  args.gap_start = gap_start;
  args.gap_end = gap_end;
  args.angles_per_row = angles_per_row != 0;
  args.out = const_cast<void*>(out);
  args.lse = const_cast<float*>(lse);
  args.grad_out = grad_out;
  args.grad_q = grad_q;
  args.grad_kv = grad_kv;
  args.grad_k_rope = grad_k_rope;
  RQ_DISPATCH(isa, attention_backward(args, threads))
}
