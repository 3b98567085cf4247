/* cmd_forward.c - mixrank forward: every hidden state and the logits of one input, as safetensors,
 * so that anyone can compare a checkpoint with a reference of their own.
 *
 * Names follow transformers' output_hidden_states: hidden_states.0 is the embedding after the
 * scatter, hidden_states.i the output of block i, and the last one is after the final norm.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/file.h"
#include "encoders/llava.h"
#include "engine/oracle.h"
#include "engine/session.h"
#include "engine/tokenizer.h"
#include "engine/untrained.h"
#include "ranker/cli/command.h"
#include "ranker/model/bundle.h"

enum { BACKEND_SCORING, BACKEND_BLAS, BACKEND_ORACLE };
static const char *const backend_choices[] = {"scoring", "blas", "oracle", NULL};

typedef struct {
    const char *model, *text, *ids, *embeds, *image, *out;
    int backend;
    int64_t threads;
    bool add_special, json;
} forward_options;

static const mr_option options[] = {
    MR_OPTION_STRING("model", 'm', "DIR", forward_options, model, "a Hugging Face model folder"),
    MR_OPTION_STRING("text", 't', "TEXT", forward_options, text, "the input as text"),
    MR_OPTION_STRING("ids", 'i', "IDS", forward_options, ids,
                     "the input as token ids apart by commas; -1 takes the next row of --embeds"),
    MR_OPTION_STRING("embeds", 'e', "FILE", forward_options, embeds,
                     "safetensors whose tensor 'embeds' [n, width] fills the -1 positions"),
    MR_OPTION_STRING(
        "image", 0, "FILE", forward_options, image,
        "a picture for a LLaVA folder: its vectors fill the <image> of --text; without "
        "--text the chat template around it"),
    MR_OPTION_STRING("out", 'o', "FILE", forward_options, out, "where to write, as safetensors"),
    MR_OPTION_CHOICE("backend", 0, "NAME", forward_options, backend, backend_choices,
                     "scoring: the kernels that rank; blas; oracle: plain C loops"),
    MR_OPTION_INT("threads", 0, "N", forward_options, threads, 0, 256,
                  "threads; 0: the CPUs of this process"),
    MR_OPTION_FLAG("add-special", 0, forward_options, add_special,
                   "with --text: add what the post-processor adds"),
    MR_OPTION_FLAG("json", 0, forward_options, json, "print the summary as JSON"),
    MR_OPTION_END,
};

static const mr_command_help help = {
    "forward", "--model DIR (--text TEXT | --ids IDS | --image FILE) --out FILE",
    "Runs a model over one input and writes input_ids, hidden_states.0 .. hidden_states.L (the "
    "last one "
    "after the final norm, as transformers counts them) and logits.",
    "  mixrank forward -m build/demo/bundle/llm -t 'text editor' -o /tmp/states.safetensors\n"
    "  mixrank forward -m llava-1.5-7b-hf --image photo.jpg -o /tmp/states.safetensors\n"};

typedef struct {
    size_t n, C;
    int L;
    float **layers; /* [L + 1], each [n, C] */
    size_t filled[512 + 1];
} tapped;

/* A long input comes in several passes: rows of a layer are appended as they come. */
static void on_layer(void *context, int layer, const float *rows, size_t n_rows)
{
    tapped *tap = context;
    const size_t room = tap->n - tap->filled[layer];
    const size_t take = n_rows < room ? n_rows : room;
    memcpy(tap->layers[layer] + tap->filled[layer] * tap->C, rows, take * tap->C * sizeof(float));
    tap->filled[layer] += take;
}

static mr_status parse_ids(const char *text, mr_ids *ids, mr_error *err)
{
    mr_status status = MR_OK;
    for (const char *p = text; status == MR_OK;) {
        p += strspn(p, " ,");
        if (*p == '\0')
            break;
        char *end = NULL;
        errno = 0;
        long value = strtol(p, &end, 10);
        if (end == p || errno || value < -1 || value > INT32_MAX)
            return MR_FAIL(err, INVALID, "--ids: '%.20s' is not a token id or -1", p);
        const int32_t id = (int32_t)value;
        status = mr_ids_append(ids, &id, 1, err);
        p = end;
    }
    return status;
}

static mr_status read_input(const forward_options *opt, const mr_model *model, mr_ids *ids,
                            float **embeds, size_t *n_embeds, mr_error *err)
{
    mr_status status;
    if (opt->ids) {
        status = parse_ids(opt->ids, ids, err);
    } else {
        mr_tokenizer *tok = NULL;
        status = mr_tokenizer_open(&tok, opt->model, err);
        if (status == MR_OK)
            status = mr_tokenizer_encode(tok, mr_str_of(opt->text),
                                         MR_TOKENIZE_PARSE_SPECIAL |
                                             (opt->add_special ? MR_TOKENIZE_ADD_SPECIAL : 0),
                                         ids, err);
        mr_tokenizer_close(tok);
    }
    if (status == MR_OK && ids->n == 0)
        status = MR_FAIL(err, INVALID, "the input has no tokens");
    if (status != MR_OK || !opt->embeds)
        return status;
    mr_safetensors *file = NULL;
    mr_tensor tensor;
    status = mr_safetensors_open(&file, opt->embeds, err);
    const int64_t shape[2] = {-1, model->config.C};
    if (status == MR_OK)
        status = mr_safetensors_need(file, "embeds", 2, shape, &tensor, err);
    if (status == MR_OK) {
        *n_embeds = (size_t)tensor.shape[0];
        *embeds = calloc(*n_embeds * (size_t)model->config.C + 1, sizeof **embeds);
        if (*embeds)
            mr_dtype_to_f32(*embeds, tensor.data, tensor.dtype,
                            *n_embeds * (size_t)model->config.C);
        else
            status = MR_FAIL(err, NO_MEMORY, "embeds");
    }
    mr_safetensors_close(file);
    return status;
}

/* The picture through the tower and the projector into the places of its marker. */
static mr_status read_picture(const forward_options *opt, mr_llava *llava, mr_ids *ids,
                              float **embeds, size_t *n_embeds, mr_error *err)
{
    mr_arena arena = {0};
    mr_str file;
    size_t n_markers = 0;
    mr_status status = mr_file_read(&arena, opt->image, MR_COMMAND_MAX_IMAGE, &file, err);
    if (status == MR_OK) {
        const mr_llava_image image = {opt->image, {file.data, file.len}};
        const mr_llava_request request = {.prompt = mr_str_of(opt->text ? opt->text : ""),
                                          .raw_prompt = opt->text != NULL,
                                          .images = &image,
                                          .n_images = 1};
        status = mr_llava_prompt_ids(llava, &request, ids, &n_markers, err);
        if (status == MR_OK)
            status = mr_llava_pictures(llava, &request, embeds, err);
        *n_embeds = mr_llava_image_tokens(llava);
    }
    mr_arena_done(&arena);
    return status;
}

static mr_status run_model(const forward_options *opt, const mr_model *model, const mr_input *input,
                           tapped *tap, float *hidden, mr_error *err)
{
    if (opt->backend == BACKEND_ORACLE) {
        float *all = calloc((size_t)(tap->L + 1) * tap->n * tap->C, sizeof *all);
        if (!all)
            return MR_FAIL(err, NO_MEMORY, "hidden states");
        mr_status status = mr_oracle_forward_f32(model, input, hidden, all, err);
        for (int layer = 0; status == MR_OK && layer <= tap->L; layer++)
            memcpy(tap->layers[layer], all + (size_t)layer * tap->n * tap->C,
                   tap->n * tap->C * sizeof(float));
        free(all);
        return status;
    }
    mr_pool *pool = NULL;
    mr_session *session = NULL;
    mr_status status = mr_pool_new(&pool, (int)opt->threads, err);
    mr_session_options session_options = {
        .max_prefix = tap->n, .max_rows = tap->n < 1024 ? tap->n : 1024, .pool = pool};
    if (status == MR_OK)
        status = mr_session_new(&session, model, &session_options, err);
    if (status == MR_OK) {
        mr_session_set_tap(session, on_layer, tap);
        const mr_batch batch = {.prefix = input, .prefix_want = MR_WANT_ALL};
        status = mr_session_run(session, &batch, hidden, err);
    }
    mr_session_free(session);
    mr_pool_free(pool);
    return status;
}

static mr_status write_states(const char *path, const mr_model *model, const mr_input *input,
                              const tapped *tap, const float *hidden, mr_error *err)
{
    const size_t n = tap->n, V = (size_t)model->config.V;
    mr_arena arena = {0};
    mr_tensor *tensors = mr_arena_array(&arena, mr_tensor, (size_t)tap->L + 3);
    float *logits = model->head.data ? calloc(n * V, sizeof *logits) : NULL;
    mr_status status = MR_OK;
    if (!tensors || (model->head.data && !logits)) {
        status = MR_FAIL(err, NO_MEMORY, "[%zu, %zu] logits", n, V);
        goto out;
    }
    size_t count = 0;
    tensors[count++] = (mr_tensor){.name = "input_ids",
                                   .data = input->ids,
                                   .dtype = MR_DTYPE_I32,
                                   .n_dims = 1,
                                   .shape = {(int64_t)n},
                                   .bytes = n * sizeof(int32_t)};
    for (int layer = 0; layer <= tap->L; layer++) {
        char *name = mr_arena_alloc(&arena, 32, 1, 1);
        if (!name) {
            status = MR_FAIL(err, NO_MEMORY, "tensor names");
            goto out;
        }
        snprintf(name, 32, "hidden_states.%d", layer);
        tensors[count++] = (mr_tensor){.name = name,
                                       .data = layer == tap->L ? hidden : tap->layers[layer],
                                       .dtype = MR_DTYPE_F32,
                                       .n_dims = 2,
                                       .shape = {(int64_t)n, (int64_t)tap->C},
                                       .bytes = n * tap->C * sizeof(float)};
    }
    if (logits) {
        mr_model_logits(model, NULL, hidden, n, logits);
        tensors[count++] = (mr_tensor){.name = "logits",
                                       .data = logits,
                                       .dtype = MR_DTYPE_F32,
                                       .n_dims = 2,
                                       .shape = {(int64_t)n, (int64_t)V},
                                       .bytes = n * V * sizeof(float)};
    }
    static const char *const untrained[] = {MR_UNTRAINED_KEY, MR_UNTRAINED_NOTICE, NULL};
    status = mr_safetensors_write(path, tensors, count,
                                  mr_model_is_untrained(model) ? untrained : NULL, err);
out:
    free(logits);
    mr_arena_done(&arena);
    return status;
}

/* llava: where the model is a part of one; else NULL. */
static mr_status forward(const forward_options *opt, const mr_model *model, mr_llava *llava,
                         size_t *n_tokens, mr_error *err)
{
    mr_ids ids = {0};
    float *embeds = NULL, *hidden = NULL;
    tapped tap = {.C = (size_t)model->config.C, .L = model->config.L};
    mr_input input = {0};
    mr_status status = llava ? read_picture(opt, llava, &ids, &embeds, &input.n_embeds, err)
                             : read_input(opt, model, &ids, &embeds, &input.n_embeds, err);
    if (status != MR_OK)
        goto out;
    input.ids = ids.data;
    input.n = tap.n = ids.n;
    input.embeds = embeds;
    hidden = calloc(tap.n * tap.C, sizeof *hidden);
    tap.layers = calloc((size_t)tap.L + 1, sizeof *tap.layers);
    bool failed = !hidden || !tap.layers;
    for (int layer = 0; !failed && layer <= tap.L; layer++) {
        tap.layers[layer] = calloc(tap.n * tap.C, sizeof(float));
        failed = !tap.layers[layer];
    }
    status = failed ? MR_FAIL(err, NO_MEMORY, "hidden states of %zu tokens", tap.n)
                    : run_model(opt, model, &input, &tap, hidden, err);
    if (status == MR_OK)
        status = write_states(opt->out, model, &input, &tap, hidden, err);
    *n_tokens = tap.n;
out:
    for (int layer = 0; tap.layers && layer <= tap.L; layer++)
        free(tap.layers[layer]);
    free(tap.layers);
    free(hidden);
    free(embeds);
    mr_ids_release(&ids);
    return status;
}

static void print_summary(const forward_options *opt, const mr_model *model, size_t n)
{
    const mr_model_config *config = &model->config;
    const bool untrained = mr_model_is_untrained(model);
    if (opt->json) {
        json_t *root = json_pack("{s:s, s:I, s:i, s:i, s:i, s:o}", "model",
                                 mr_family_name(config->family), "tokens", (json_int_t)n, "layers",
                                 config->L, "width", config->C, "vocabulary", (int)config->V, "out",
                                 mr_command_json_text(mr_str_of(opt->out)));
        if (root && untrained)
            json_object_set_new(root, "notice", json_string(MR_UNTRAINED_NOTICE));
        mr_command_print_json(root);
    } else {
        printf("%s: hidden_states.0 .. %d [%zu, %d] and logits [%zu, %d] in %s%s\n",
               mr_family_name(config->family), config->L, n, config->C, n, (int)config->V, opt->out,
               untrained ? "; " MR_UNTRAINED_NOTICE : "");
    }
    if (untrained)
        mr_command_warn_untrained(help.name, !opt->json);
}

static mr_status forward_model(const forward_options *opt, size_t *n, mr_error *err)
{
    mr_model *model = NULL;
    mr_model_options options_of_model = MR_MODEL_OPTIONS_DEFAULT;
    options_of_model.gemm = opt->backend == BACKEND_BLAS ? MR_GEMM_BLAS : MR_GEMM_SCORING;
    mr_status status = mr_model_open(&model, opt->model, &options_of_model, err);
    if (status == MR_OK)
        status = forward(opt, model, NULL, n, err);
    if (status == MR_OK)
        print_summary(opt, model, *n);
    mr_model_close(model);
    return status;
}

static mr_status forward_llava(const forward_options *opt, size_t *n, mr_error *err)
{
    mr_pool *pool = NULL;
    mr_llava *llava = NULL;
    mr_status status = mr_pool_new(&pool, (int)opt->threads, err);
    const mr_llava_options options_of_llava = {.pool = pool};
    if (status == MR_OK)
        status = mr_llava_open(&llava, opt->model, &options_of_llava, err);
    if (status == MR_OK)
        status = forward(opt, mr_llava_model(llava), llava, n, err);
    if (status == MR_OK)
        print_summary(opt, mr_llava_model(llava), *n);
    mr_llava_close(llava);
    mr_pool_free(pool);
    return status;
}

int mr_cmd_forward(int argc, char **argv)
{
    forward_options opt = {0};
    int n_positional = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n_positional, &code))
        return code;
    if (n_positional)
        return mr_command_misuse(help.name, "unexpected argument '%s'", argv[1]);
    const char *mistake = !opt.model                             ? "--model is missing"
                          : !opt.out                             ? "--out is missing"
                          : opt.image && (opt.ids || opt.embeds) ? "--image goes with --text alone"
                          : opt.image && opt.backend == BACKEND_BLAS
                              ? "--image runs with scoring or "
                                "oracle"
                          : !opt.image && !opt.text == !opt.ids ? "give either --text or --ids"
                                                                : NULL;
    if (mistake)
        return mr_command_misuse(help.name, "%s", mistake);
    mr_error err = {0};
    size_t n = 0;
    if ((opt.image ? forward_llava : forward_model)(&opt, &n, &err) != MR_OK)
        code = mr_command_fail(help.name, &err);
    return code;
}
