/* llava.h - LLaVA-1.5's forward pass (arXiv 2310.03744): CLIP features of the pictures, projected,
 * scattered onto the <image> placeholders, and a language model over the result.
 *
 *     mr_llava *llava = NULL;
 *     mr_llava_open(&llava, "llava-1.5-7b-hf/", &opt, &err);
 *     mr_llava_answer(llava, &request, on_text, context, &report, &err);
 *
 * Reads llava-hf folders in the three spellings of their tensor names
 * (language_model.model., 4.52's model.language_model., and 5.x's without vision_model.), single
 * and sharded; F16 weights are widened exactly. vision_feature_layer,
 * vision_feature_select_strategy, image_token_index, projector_hidden_act and
 * multimodal_projector_bias come from config.json; its text_config and vision_config may be short,
 * for what is absent has the value that transformers gives it. Whatever is not computed is
 * UNSUPPORTED by name. Answers end at the eos_token_id of generation_config.json, or of text_config
 * when there is no such file.
 *
 * Memory beside the mapped weights is allotted at open: mr_llava_bytes. A forward pass allocates
 * nothing. Threads: one llava, one thread; it spreads work over its pool.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENCODERS_LLAVA_H
#define MR_ENCODERS_LLAVA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/bytes.h"
#include "core/error.h"
#include "core/threads.h"
#include "encoders/clip.h"
#include "engine/session.h"
#include "engine/tokenizer.h"

typedef struct mr_llava mr_llava;

typedef struct {
    mr_pool *pool;             /* borrowed; NULL: one thread */
    const mr_kernels *kernels; /* NULL: the best */
    size_t max_positions; /* of the session: prompt, pictures and answer; 0: 2048, or what the model
                             has when that is less */
    bool pad_to_square;   /* the original LLaVA's mean-colour padding instead of Hugging Face's crop
                           */
} mr_llava_options;

MR_NODISCARD mr_status mr_llava_open(mr_llava **out, const char *folder,
                                     const mr_llava_options *opt, mr_error *err);
void mr_llava_close(mr_llava *llava); /* NULL is fine */

const mr_model *mr_llava_model(const mr_llava *llava);
const mr_tokenizer *mr_llava_tokenizer(const mr_llava *llava);
const mr_clip_vision_config *mr_llava_vision(const mr_llava *llava);
size_t mr_llava_image_tokens(const mr_llava *llava); /* of one picture: 576 */
size_t mr_llava_positions(const mr_llava *llava);    /* that the session holds */
size_t mr_llava_bytes(const mr_llava *llava);        /* without the mapped weights */
bool mr_llava_is_untrained(const mr_llava *llava);

/* An encoded picture file in memory, borrowed; name is for messages. */
typedef struct {
    const char *name;
    mr_bytes bytes;
} mr_llava_image;

typedef struct {
    mr_str prompt;   /* what to ask; or with raw_prompt the whole text with its <image> markers */
    bool raw_prompt; /* else "USER: <image>\n{prompt} ASSISTANT:" is made, "<image>\n" once for each
                      * picture: the chat template of llava-hf. In both, special tokens that the
                      * text spells are special, as they are there */
    const mr_llava_image *images;
    size_t n_images;
    size_t max_tokens;  /* of the answer, at least 1 */
    double temperature; /* 0: greedy */
    double top_p;       /* (0, 1] */
    uint64_t seed;
} mr_llava_request;

/* Shapes and times of one answer, as the seed notebook prints them. */
typedef struct {
    size_t prompt_tokens; /* ids before the pictures are expanded */
    size_t positions;     /* after: [1, positions] ids */
    size_t image_tokens, feature_width,
        width; /* [1, 576, 1024] features, [1, 576, 4096] projected */
    size_t answer_tokens;
    bool ended; /* by the end-of-sequence token, not by max_tokens */
    int64_t preprocess_us, vision_us, project_us, prefill_us;
    int64_t decode_us;      /* from the first token to the last */
    int64_t first_token_us; /* from the call to the first token */
} mr_llava_report;

/* Called with each piece of text as it is ready: whole UTF-8 sequences, which together are the
 * decoded answer without special tokens. Returning false ends the answer. */
typedef bool (*mr_llava_on_text)(void *context, const char *text, size_t len);

/* MISMATCH when markers and pictures do not count the same, as masked_scatter demands; EXHAUSTED
 * when prompt, pictures and max_tokens do not fit the session. report may be NULL. */
MR_NODISCARD mr_status mr_llava_answer(mr_llava *llava, const mr_llava_request *request,
                                       mr_llava_on_text on_text, void *context,
                                       mr_llava_report *report, mr_error *err);

/* ---- The stages by themselves, for checks ---------------------------------------------------- */

/* The ids of a request, appended, with MR_ID_EMBED for each position that a picture fills.
 * n_markers: how many markers there were. */
MR_NODISCARD mr_status mr_llava_prompt_ids(const mr_llava *llava, const mr_llava_request *request,
                                           mr_ids *ids, size_t *n_markers, mr_error *err);

/* Decodes, prepares and encodes the request's pictures: *projected is [n_images][tokens][C], for
 * free(), or NULL without pictures. */
MR_NODISCARD mr_status mr_llava_pictures(mr_llava *llava, const mr_llava_request *request,
                                         float **projected, mr_error *err);

/* pixels: [n][3][S][S]; features: [n][tokens][vision width]; projected: [n][tokens][C], or NULL. */
MR_NODISCARD mr_status mr_llava_features(mr_llava *llava, const float *pixels, size_t n,
                                         float *features, float *projected, mr_error *err);

/* Starts over with this input; logits [V] of its last position. */
MR_NODISCARD mr_status mr_llava_prefill(mr_llava *llava, const mr_input *input, float *logits,
                                        mr_error *err);
/* One token more. */
MR_NODISCARD mr_status mr_llava_next(mr_llava *llava, int32_t id, float *logits, mr_error *err);
/* Whether an answer ends with this token. */
bool mr_llava_is_end(const mr_llava *llava, int32_t id);

#endif
