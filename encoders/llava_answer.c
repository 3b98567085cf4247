/* llava_answer.c - one answer from request to text: the prompt, the pictures, the decoding loop.
 *
 * The answer so far is decoded anew for every token, for a tokenizer may join bytes of several
 * tokens into one character and may treat the first token apart. What the next token could still
 * change is held back: a character that is not whole yet, which decodes as U+FFFD at the end, and a
 * run of byte tokens, of which a decoder with byte fallback makes characters only when all of it is
 * UTF-8. So the pieces together are what the whole answer decodes to.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/strbuf.h"
#include "encoders/llava_private.h"
#include "engine/sampler.h"

/* ---- The prompt ------------------------------------------------------------------------------ */

static mr_status build_text(const mr_llava *llava, const mr_llava_request *request, mr_strbuf *text,
                            mr_error *err)
{
    if (!request->raw_prompt) {
        mr_strbuf_puts(text, "USER: ");
        for (size_t i = 0; i < request->n_images; i++)
            mr_strbuf_printf(text, "%s\n", llava->marker);
    }
    mr_strbuf_append(text, request->prompt.data, request->prompt.len);
    if (!request->raw_prompt)
        mr_strbuf_puts(text, " ASSISTANT:");
    return text->failed ? MR_FAIL(err, NO_MEMORY, "a prompt of %zu bytes", request->prompt.len)
                        : MR_OK;
}

mr_status mr_llava_prompt_ids(const mr_llava *llava, const mr_llava_request *request, mr_ids *ids,
                              size_t *n_markers, mr_error *err)
{
    mr_strbuf text = {0};
    mr_ids short_ids = {0};
    int32_t *slots = NULL;
    mr_status status = build_text(llava, request, &text, err);
    if (status == MR_OK)
        status = mr_tokenizer_encode(llava->tokenizer, (mr_str){text.data, text.len},
                                     MR_TOKENIZE_PARSE_SPECIAL | MR_TOKENIZE_ADD_SPECIAL,
                                     &short_ids, err);
    if (status != MR_OK)
        goto out;

    *n_markers = 0;
    for (size_t i = 0; i < short_ids.n; i++)
        *n_markers += short_ids.data[i] == llava->config.image_token;
    if (*n_markers != request->n_images) {
        status = MR_FAIL(err, MISMATCH,
                         "the prompt has %zu '%s' marker%s and there %s %zu picture%s; each marker "
                         "takes one",
                         *n_markers, llava->marker, *n_markers == 1 ? "" : "s",
                         request->n_images == 1 ? "is" : "are", request->n_images,
                         request->n_images == 1 ? "" : "s");
        goto out;
    }
    slots = malloc(llava->image_tokens * sizeof *slots);
    if (!slots) {
        status = MR_FAIL(err, NO_MEMORY, "the positions of a picture");
        goto out;
    }
    for (size_t i = 0; i < llava->image_tokens; i++)
        slots[i] = MR_ID_EMBED;
    for (size_t i = 0; status == MR_OK && i < short_ids.n; i++) {
        const int32_t id = short_ids.data[i];
        if (id == llava->config.image_token)
            status = mr_ids_append(ids, slots, llava->image_tokens, err);
        else
            status = mr_ids_append(ids, &id, 1, err);
    }

out:
    free(slots);
    mr_ids_release(&short_ids);
    mr_strbuf_release(&text);
    return status;
}

/* ---- Text as it comes ------------------------------------------------------------------------ */

typedef struct {
    const mr_tokenizer *tokenizer;
    mr_llava_on_text on_text;
    void *context;
    mr_ids ids;
    size_t said; /* bytes of the answer's text */
    bool stopped;
} stream;

static const char replacement[] = "\xEF\xBF\xBD";

/* "<0x0A>": a byte that has no token of its own. */
static bool is_byte(const mr_tokenizer *tokenizer, int32_t id)
{
    const char *token = mr_tokenizer_token(tokenizer, id);
    return token && strncmp(token, "<0x", 3) == 0 && strlen(token) == 6 && token[5] == '>';
}

/* Says what is new and settled; at the end, also what never became whole. */
static mr_status flush(stream *out, bool at_end, mr_error *err)
{
    char *text = NULL;
    size_t len = 0, settled = out->ids.n;
    while (!at_end && settled > 0 && is_byte(out->tokenizer, out->ids.data[settled - 1]))
        settled--;
    mr_status status =
        mr_tokenizer_decode(out->tokenizer, out->ids.data, settled, true, &text, &len, err);
    if (status != MR_OK)
        return status;

    while (!at_end && len >= 3 && memcmp(text + len - 3, replacement, 3) == 0)
        len -= 3;
    size_t from = out->said;
    while (from < len && ((unsigned char)text[from] & 0xC0) == 0x80)
        from++;
    if (from < len && !out->stopped) {
        out->said = len;
        out->stopped = out->on_text && !out->on_text(out->context, text + from, len - from);
    }
    free(text);
    return MR_OK;
}

static mr_status add_token(stream *out, int32_t id, mr_error *err)
{
    /* Rows beyond the vocabulary pad the matrices of published models; they have no text. */
    if (!mr_tokenizer_token(out->tokenizer, id))
        return MR_OK;
    mr_status status = mr_ids_append(&out->ids, &id, 1, err);
    return status == MR_OK ? flush(out, false, err) : status;
}

/* ---- Pictures -------------------------------------------------------------------------------- */

static mr_status preprocess(const mr_llava *llava, const mr_llava_image *file, float *pixels,
                            mr_error *err)
{
    mr_image image = {0};
    mr_status status = mr_image_decode(&image, file->name, file->bytes, NULL, err);
    if (status == MR_OK)
        status = mr_image_preprocess(&image, &llava->config.target, pixels, err);
    mr_image_release(&image);
    return status;
}

/* All pictures of a request as vectors for the language model, in *projected for free(). */
static mr_status encode_images(mr_llava *llava, const mr_llava_request *request, float **projected,
                               mr_llava_report *report, mr_error *err)
{
    const size_t n = request->n_images, tokens = llava->image_tokens;
    const size_t most = n < MR_LLAVA_PASS_IMAGES ? n : MR_LLAVA_PASS_IMAGES;
    const size_t S = (size_t)llava->config.vision.image_size, pixels_each = 3 * S * S;
    const size_t C = (size_t)llava->config.text.C;
    float *pixels = calloc(most, pixels_each * sizeof *pixels);
    float *features = calloc(most * tokens, (size_t)llava->config.vision.C * sizeof *features);
    *projected = calloc(n * tokens, C * sizeof **projected);
    mr_status status = MR_OK;
    if (!pixels || !features || !*projected) {
        status = MR_FAIL(err, NO_MEMORY, "%zu pictures of %zu vectors", n, tokens);
        goto out;
    }

    for (size_t first = 0; first < n; first += most) {
        const size_t count = n - first < most ? n - first : most;
        const int64_t start = mr_clock_monotonic_us();
        for (size_t i = 0; status == MR_OK && i < count; i++)
            status = preprocess(llava, &request->images[first + i], pixels + i * pixels_each, err);
        if (status != MR_OK)
            goto out;
        const int64_t decoded = mr_clock_monotonic_us();
        status = mr_llava_features(llava, pixels, count, features, NULL, err);
        if (status != MR_OK)
            goto out;
        const int64_t seen = mr_clock_monotonic_us();
        mr_projector_run(llava->projector, llava->kernels, llava->pool, llava->projector_scratch,
                         features, count * tokens, *projected + first * tokens * C);
        report->preprocess_us += decoded - start;
        report->vision_us += seen - decoded;
        report->project_us += mr_clock_monotonic_us() - seen;
    }

out:
    free(features);
    free(pixels);
    return status;
}

mr_status mr_llava_pictures(mr_llava *llava, const mr_llava_request *request, float **projected,
                            mr_error *err)
{
    mr_llava_report times = {0};
    *projected = NULL;
    if (request->n_images == 0)
        return MR_OK;
    mr_status status = encode_images(llava, request, projected, &times, err);
    if (status != MR_OK) {
        free(*projected);
        *projected = NULL;
    }
    return status;
}

/* ---- The answer ------------------------------------------------------------------------------ */

static mr_status decode(mr_llava *llava, const mr_llava_request *request, mr_sampler *sampler,
                        float *logits, stream *out, int64_t start, mr_llava_report *report,
                        mr_error *err)
{
    mr_status status = MR_OK;
    int64_t first = 0;
    while (status == MR_OK && !out->stopped) {
        const int32_t id = mr_sampler_next(sampler, logits);
        report->answer_tokens++;
        if (report->answer_tokens == 1) {
            first = mr_clock_monotonic_us();
            report->first_token_us = first - start;
        }
        report->ended = mr_llava_is_end(llava, id);
        if (report->ended)
            break;
        status = add_token(out, id, err);
        if (status != MR_OK || report->answer_tokens == request->max_tokens)
            break;
        status = mr_llava_next(llava, id, logits, err);
    }
    report->decode_us = mr_clock_monotonic_us() - first;
    return status == MR_OK ? flush(out, true, err) : status;
}

mr_status mr_llava_answer(mr_llava *llava, const mr_llava_request *request,
                          mr_llava_on_text on_text, void *context, mr_llava_report *report,
                          mr_error *err)
{
    const int64_t start = mr_clock_monotonic_us();
    mr_llava_report own = {0};
    mr_sampler sampler = {0};
    mr_ids ids = {0};
    stream out = {.tokenizer = llava->tokenizer, .on_text = on_text, .context = context};
    float *projected = NULL, *logits = NULL;
    const size_t V = (size_t)llava->config.text.V;
    size_t n_markers = 0;

    if (request->max_tokens == 0)
        return MR_FAIL(err, INVALID, "an answer of max_tokens 0; it must be at least 1");
    mr_status status =
        mr_sampler_init(&sampler, V, request->temperature, request->top_p, request->seed, err);
    if (status != MR_OK)
        return status;
    status = mr_llava_prompt_ids(llava, request, &ids, &n_markers, err);
    if (status != MR_OK)
        goto out;
    if (ids.n > llava->max_positions || request->max_tokens - 1 > llava->max_positions - ids.n) {
        status = MR_FAIL(err, EXHAUSTED,
                         "a prompt of %zu positions (%zu of pictures) and an answer of %zu tokens "
                         "do not fit the %zu positions of the session",
                         ids.n, n_markers * llava->image_tokens, request->max_tokens,
                         llava->max_positions);
        goto out;
    }
    own.positions = ids.n;
    own.prompt_tokens = ids.n - n_markers * (llava->image_tokens - 1);
    own.image_tokens = llava->image_tokens;
    own.feature_width = (size_t)llava->config.vision.C;
    own.width = (size_t)llava->config.text.C;

    logits = calloc(V, sizeof *logits);
    if (!logits) {
        status = MR_FAIL(err, NO_MEMORY, "logits of %zu tokens", V);
        goto out;
    }
    if (request->n_images > 0) {
        status = encode_images(llava, request, &projected, &own, err);
        if (status != MR_OK)
            goto out;
    }
    const int64_t prefill = mr_clock_monotonic_us();
    const mr_input input = {.ids = ids.data,
                            .n = ids.n,
                            .embeds = projected,
                            .n_embeds = n_markers * llava->image_tokens};
    status = mr_llava_prefill(llava, &input, logits, err);
    if (status != MR_OK)
        goto out;
    own.prefill_us = mr_clock_monotonic_us() - prefill;
    status = decode(llava, request, &sampler, logits, &out, start, &own, err);
    if (status == MR_OK && report)
        *report = own;

out:
    mr_ids_release(&out.ids);
    mr_ids_release(&ids);
    mr_sampler_done(&sampler);
    free(projected);
    free(logits);
    return status;
}
