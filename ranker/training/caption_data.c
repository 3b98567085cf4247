/* caption_data.c - see caption_data.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/caption_data.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/jsonl.h"
#include "encoders/image_encoder.h"

#define MAX_IMAGE ((size_t)32 << 20)
#define PICTURES  8 /* of a pass through a frozen tower */

/* ---- Rows ------------------------------------------------------------------------------------ */

typedef struct {
    mr_captions *captions;
    const mr_trainer *trainer;
    const char *path; /* of the captions */
    int32_t marker;   /* id of the marker, or -1 */
    mr_ids before, after, text;
} reader;

/* The two sides of the marker. Where the tokenizer knows it, as LLaVA's does, the prompt is
 * tokenised as a whole: what stands before decides how the first word after it is cut. */
static mr_status cut_prompt(reader *r, const char *prompt, mr_error *err)
{
    const int flags = MR_TOKENIZE_PARSE_SPECIAL | MR_TOKENIZE_ADD_SPECIAL;
    const mr_tokenizer *tokenizer = r->trainer->tokenizer;
    const char *at = strstr(prompt, MR_CAPTION_MARKER);
    if (!at || strstr(at + 1, MR_CAPTION_MARKER))
        return MR_FAIL(err, INVALID, "'prompt' has %s '" MR_CAPTION_MARKER "', expected one",
                       at ? "more than one" : "no");
    r->before.n = r->after.n = 0;
    if (r->marker < 0) {
        const char *rest = at + strlen(MR_CAPTION_MARKER);
        mr_status status = mr_tokenizer_encode(tokenizer, (mr_str){prompt, (size_t)(at - prompt)},
                                               flags, &r->before, err);
        return status == MR_OK ? mr_tokenizer_encode(tokenizer, mr_str_of(rest),
                                                     MR_TOKENIZE_PARSE_SPECIAL, &r->after, err)
                               : status;
    }
    mr_status status = mr_tokenizer_encode(tokenizer, mr_str_of(prompt), flags, &r->before, err);
    size_t i = 0;
    while (status == MR_OK && i < r->before.n && r->before.data[i] != r->marker)
        i++;
    if (status == MR_OK && i == r->before.n)
        status = MR_FAIL(err, INTERNAL, "the marker of a prompt is not among its tokens");
    if (status == MR_OK)
        status = mr_ids_append(&r->after, r->before.data + i + 1, r->before.n - i - 1, err);
    if (status == MR_OK)
        r->before.n = i;
    return status;
}

static mr_status add_caption(reader *r, uint32_t picture, mr_error *err)
{
    mr_captions *c = r->captions;
    const size_t prompt = r->before.n + r->after.n;
    const size_t most = (size_t)r->trainer->recipe->max_tokens;
    if (prompt >= most)
        return MR_FAIL(err, INVALID,
                       "its prompt has %zu tokens, which leaves none of max_tokens (%zu) to learn",
                       prompt, most);
    if (r->text.n > most - prompt)
        r->text.n = most - prompt;
    if (c->n == c->capacity) {
        const size_t capacity = c->capacity ? 2 * c->capacity : 256;
        mr_caption *grown = realloc(c->caption, capacity * sizeof *grown);
        if (!grown)
            return MR_FAIL(err, NO_MEMORY, "%zu captions", capacity);
        c->caption = grown;
        c->capacity = capacity;
    }
    const size_t total = prompt + r->text.n;
    c->caption[c->n] = (mr_caption){c->ids.n, (uint32_t)r->before.n, (uint32_t)r->after.n,
                                    (uint32_t)r->text.n, picture};
    mr_status status = mr_ids_append(&c->ids, r->before.data, r->before.n, err);
    if (status == MR_OK)
        status = mr_ids_append(&c->ids, r->after.data, r->after.n, err);
    if (status == MR_OK)
        status = mr_ids_append(&c->ids, r->text.data, r->text.n, err);
    if (status != MR_OK)
        return status;
    c->n++;
    if (total > c->longest)
        c->longest = total;
    return MR_OK;
}

static mr_status read_row(void *context, const json_t *row, uint64_t line, mr_error *err)
{
    (void)line;
    reader *r = context;
    mr_json_cursor cur = mr_json_cursor_of(r->path, row, err);
    const int32_t eos = r->trainer->llm.decoder.config.eos_id;
    const char *image = mr_json_string(&cur, "image", "", false);
    if (cur.status == MR_OK && !*image) {
        r->captions->passed_over++;
        return MR_OK;
    }
    const char *text = mr_json_string(&cur, "text", NULL, true);
    const char *prompt = mr_json_string(&cur, "prompt", MR_CAPTION_MARKER, false);
    uint32_t picture;
    mr_status status = cur.status;
    /* The path is the file's word, and a file of captions may be anybody's. */
    if (status == MR_OK)
        status = mr_path_check_relative(image, err);
    if (status == MR_OK)
        status = mr_intern_add(&r->captions->pictures, mr_str_of(image), &picture, NULL, err);
    if (status == MR_OK)
        status = cut_prompt(r, prompt, err);
    r->text.n = 0;
    if (status == MR_OK)
        status = mr_tokenizer_encode(r->trainer->tokenizer, mr_str_of(text), MR_TOKENIZE_PLAIN,
                                     &r->text, err);
    if (status == MR_OK)
        status = mr_ids_append(&r->text, &eos, 1, err);
    return status == MR_OK ? add_caption(r, picture, err) : status;
}

static mr_status read_rows(reader *r, const char *path, mr_error *err)
{
    uint64_t line;
    r->path = path;
    mr_status status = mr_jsonl_each(path, MR_JSONL_MAX_LINE, read_row, r, &line, err);
    if (line)
        return mr_error_prefix(err, status, "%s, line %" PRIu64, path, line);
    if (status == MR_OK && r->captions->n == 0)
        status = MR_FAIL(err, INVALID, "'%s' has no row with a picture (%" PRIu64 " without)", path,
                         r->captions->passed_over);
    return status;
}

/* ---- Pictures -------------------------------------------------------------------------------- */

/* The bytes of a picture's file, in the arena. */
static mr_status read_picture(const mr_captions *c, uint32_t picture, mr_arena *arena,
                              const char **name, mr_bytes *out, mr_error *err)
{
    const mr_str relative = c->pictures.name[picture];
    mr_str file;
    *name = mr_arena_strndup(arena, relative.data, relative.len);
    const char *path = *name ? mr_path_join(arena, c->folder, *name) : NULL;
    if (!path)
        return MR_FAIL(err, NO_MEMORY, "a picture's path");
    mr_status status = mr_file_read(arena, path, MAX_IMAGE, &file, err);
    *out = (mr_bytes){file.data, file.len};
    return status;
}

mr_status mr_captions_pixels(const mr_captions *c, uint32_t picture, float *pixels, mr_error *err)
{
    mr_arena arena = {0};
    mr_image image = {0};
    const char *name;
    mr_bytes file = {0};
    mr_status status = read_picture(c, picture, &arena, &name, &file, err);
    if (status == MR_OK)
        status = mr_image_decode(&image, name, file, NULL, err);
    if (status == MR_OK)
        status = mr_image_preprocess(&image, &c->target, pixels, err);
    mr_image_release(&image);
    mr_arena_done(&arena);
    return status;
}

/* Through serving's encoder, whose numbers depend neither on company nor on threads. */
static mr_status compute_features(mr_captions *c, const mr_trainer *t, mr_error *err)
{
    const mr_vision_shape *shape = &t->vision.vision.shape;
    const mr_image_encoder_options opt = {.tokens = shape->tokens,
                                          .feature_layer = shape->feature_layer,
                                          .gemm = MR_GEMM_SCORING,
                                          .batch = PICTURES,
                                          .pool = t->pool};
    mr_image_encoder *encoder = NULL;
    c->features = calloc(c->pictures.n, c->width * sizeof(float));
    if (!c->features)
        return MR_FAIL(err, NO_MEMORY,
                       "tokens of %zu pictures, %zu numbers each; fewer 'tokens' of part 'vision' "
                       "are a mean of its patches",
                       c->pictures.n, c->width);
    mr_status status = mr_image_encoder_open(&encoder, t->vision.recipe->from, &opt, err);
    for (size_t begin = 0; status == MR_OK && begin < c->pictures.n; begin += PICTURES) {
        const size_t left = c->pictures.n - begin, n = left < PICTURES ? left : PICTURES;
        for (size_t i = 0; status == MR_OK && i < n; i++) {
            mr_arena arena = {0};
            const char *name;
            mr_bytes file = {0};
            status = read_picture(c, (uint32_t)(begin + i), &arena, &name, &file, err);
            if (status == MR_OK)
                status = mr_image_encoder_put(encoder, i, name, file, err);
            mr_arena_done(&arena);
        }
        if (status == MR_OK)
            status = mr_image_encoder_run(encoder, n, c->features + begin * c->width, err);
    }
    mr_image_encoder_close(encoder);
    return status;
}

/* What can be seen without decoding, so that a long run does not end at a picture that was never
 * one. */
static mr_status inspect_pictures(const mr_captions *c, mr_error *err)
{
    mr_status status = MR_OK;
    for (uint32_t i = 0; status == MR_OK && i < c->pictures.n; i++) {
        mr_arena arena = {0};
        mr_image_info info;
        const char *name;
        mr_bytes file = {0};
        status = read_picture(c, i, &arena, &name, &file, err);
        if (status == MR_OK)
            status = mr_image_inspect(&info, name, file, NULL, err);
        mr_arena_done(&arena);
    }
    return status;
}

/* ---- Opening --------------------------------------------------------------------------------- */

mr_status mr_captions_open(mr_captions *out, const mr_trainer *t, mr_error *err)
{
    const char *path = t->recipe->data.captions, *slash = strrchr(path, '/');
    const mr_vision_shape *shape = &t->vision.vision.shape;
    reader r = {.captions = out,
                .trainer = t,
                .marker = mr_tokenizer_token_id(t->tokenizer, MR_CAPTION_MARKER)};
    *out = (mr_captions){.width = (size_t)shape->tokens * (size_t)shape->config.C};
    const size_t folder = slash == path ? 1 : slash ? (size_t)(slash - path) : 0;
    out->folder = calloc(folder + 2, 1);
    mr_status status = MR_OK;
    if (!out->folder)
        status = MR_FAIL(err, NO_MEMORY, "a path");
    else
        memcpy(out->folder, slash ? path : ".", slash ? folder : 1);
    if (status == MR_OK && t->llm.decoder.config.eos_id < 0)
        status = MR_FAIL(err, INVALID, "the llm's config.json names no eos_token_id to end texts");
    if (status == MR_OK)
        status = mr_image_target_load(&out->target, t->vision.recipe->from,
                                      shape->config.image_size, err);
    if (status == MR_OK)
        status = read_rows(&r, path, err);
    mr_ids_release(&r.before);
    mr_ids_release(&r.after);
    mr_ids_release(&r.text);
    if (status == MR_OK)
        status = mr_trainer_trains(t, &t->vision) ? inspect_pictures(out, err)
                                                  : compute_features(out, t, err);
    if (status != MR_OK)
        mr_captions_close(out);
    return status;
}

void mr_captions_close(mr_captions *c)
{
    mr_ids_release(&c->ids);
    mr_intern_release(&c->pictures);
    free(c->caption);
    free(c->folder);
    free(c->features);
    *c = (mr_captions){0};
}
