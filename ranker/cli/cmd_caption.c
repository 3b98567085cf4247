/* cmd_caption.c - mixrank caption: ask a LLaVA about pictures.
 *
 * The answer is streamed to standard output as it is decoded. --explain prints, on standard error,
 * the shapes that the tensors have on their way, as LLaVA's forward pass is usually explained, and
 * what each step took.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/file.h"
#include "core/strbuf.h"
#include "core/utf8.h"
#include "encoders/llava.h"
#include "ranker/cli/command.h"

#define NOTICE "untrained weights: what it says means nothing"

typedef struct {
    const char *model, *prompt;
    mr_option_list images;
    int64_t max_tokens, context, threads, seed;
    double temperature, top_p;
    bool raw_prompt, pad_square, explain, json;
} caption_options;

static const mr_option options[] = {
    MR_OPTION_STRING("model", 'm', "DIR", caption_options, model, "a llava-hf folder"),
    MR_OPTION_LIST("image", 'i', "FILE", caption_options, images,
                   "a PNG, JPEG or BMP; may be given several times"),
    MR_OPTION_STRING("prompt", 'p', "TEXT", caption_options, prompt, "what to ask"),
    MR_OPTION_FLAG("raw-prompt", 0, caption_options, raw_prompt,
                   "the prompt is the whole text, with one <image> for each picture, and no chat "
                   "template is put around it"),
    MR_OPTION_INT("max-tokens", 0, "N", caption_options, max_tokens, 1, 1048576,
                  "longest answer in tokens"),
    MR_OPTION_REAL("temperature", 't', "T", caption_options, temperature, 0, 100,
                   "0: the most likely token each time"),
    MR_OPTION_REAL("top-p", 0, "P", caption_options, top_p, 1e-6, 1,
                   "with a temperature: from the most likely tokens that together have this share"),
    MR_OPTION_INT("seed", 's', "N", caption_options, seed, 0, 9e15, "of the sampling"),
    MR_OPTION_FLAG("pad-square", 0, caption_options, pad_square,
                   "pad pictures to squares with the mean colour, as the original LLaVA does; else "
                   "their centre is cut out"),
    MR_OPTION_INT("context", 0, "N", caption_options, context, 0, 1048576,
                  "positions of prompt, pictures and answer together; 0: 2048"),
    MR_OPTION_INT("threads", 0, "N", caption_options, threads, 0, 256,
                  "threads; 0: the CPUs of this process"),
    MR_OPTION_FLAG("explain", 0, caption_options, explain,
                   "print shapes, times and memory on standard error"),
    MR_OPTION_FLAG("json", 0, caption_options, json,
                   "print one JSON object at the end, instead of the text as it comes"),
    MR_OPTION_END,
};

static const mr_command_help help = {
    "caption", "--model DIR --image FILE [--image FILE ...] --prompt TEXT [options]",
    "Answers a question about pictures with a LLaVA-1.5 (any llava-hf folder). EXIF orientation is "
    "not applied.",
    "  mixrank caption -m llava-1.5-7b-hf -i photo.jpg -p 'What is in this picture?'\n"
    "  mixrank bundle untrained --shape llava-tiny /tmp/llava\n"
    "  mixrank caption -m /tmp/llava -i photo.jpg -p 'Describe it.' --max-tokens 20 --explain\n"};

/* ---- Text as it comes ------------------------------------------------------------------------ */

typedef struct {
    mr_strbuf text;
    bool print;       /* to standard output, now */
    bool on_terminal; /* where a model must not send control sequences */
    bool waiting;     /* a line on standard error says so */
} listener;

static void print_clean(const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        uint32_t code = 0;
        const size_t n = mr_utf8_decode(text + i, len - i, &code);
        const bool control =
            (code < 0x20 && code != '\n' && code != '\t') || (code >= 0x7f && code < 0xa0);
        if (n == 0 || control)
            fputc('?', stdout);
        else
            fwrite(text + i, 1, n, stdout);
        i += n ? n : 1;
    }
}

static void stop_waiting(listener *l)
{
    if (l->waiting)
        fputs("\r\033[K", stderr);
    l->waiting = false;
}

static bool on_text(void *context, const char *text, size_t len)
{
    listener *l = context;
    stop_waiting(l);
    if (!l->print) {
        mr_strbuf_append(&l->text, text, len);
        return !l->text.failed;
    }
    if (l->on_terminal)
        print_clean(text, len);
    else
        fwrite(text, 1, len, stdout);
    return fflush(stdout) == 0;
}

/* ---- What it took ---------------------------------------------------------------------------- */

static double max_rss_mb(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (double)usage.ru_maxrss / 1000 : 0;
}

/* Of the tokens after the first one; 0 when there are none. */
static double tokens_per_second(const mr_llava_report *report)
{
    return report->answer_tokens > 1 && report->decode_us > 0
               ? 1e6 * (double)(report->answer_tokens - 1) / (double)report->decode_us
               : 0;
}

static void print_explanation(const mr_llava *llava, const mr_llava_report *report, size_t n_images)
{
    const int S = mr_llava_vision(llava)->image_size;
    const int V = (int)mr_llava_model(llava)->config.V;
    fprintf(stderr, "input_ids       [1, %zu]   %zu of text, %zu of pictures\n", report->positions,
            report->positions - n_images * report->image_tokens, n_images * report->image_tokens);
    if (n_images > 0) {
        fprintf(stderr, "pixel_values    [%zu, 3, %d, %d]\n", n_images, S, S);
        fprintf(stderr, "image_features  [%zu, %zu, %zu]\n", n_images, report->image_tokens,
                report->feature_width);
        fprintf(stderr, "projected       [%zu, %zu, %zu]\n", n_images, report->image_tokens,
                report->width);
    }
    fprintf(stderr, "inputs_embeds   [1, %zu, %zu]\n", report->positions, report->width);
    fprintf(stderr, "logits          [1, %d]   of the last position\n", V);
    fprintf(stderr, "decode and resize %.2f s, vision %.2f s, projector %.2f s, prompt %.2f s\n",
            1e-6 * (double)report->preprocess_us, 1e-6 * (double)report->vision_us,
            1e-6 * (double)report->project_us, 1e-6 * (double)report->prefill_us);
    fprintf(stderr, "first token after %.2f s, then %.2f tokens/s; %zu tokens, %s\n",
            1e-6 * (double)report->first_token_us, tokens_per_second(report), report->answer_tokens,
            report->ended ? "ended by the model" : "cut at --max-tokens");
    fprintf(stderr, "memory %.0f MB at most, mapped weights included; %.0f MB beside them\n",
            max_rss_mb(), 1e-6 * (double)mr_llava_bytes(llava));
}

static void print_report(const mr_llava *llava, const mr_llava_report *report, size_t n_images,
                         const mr_strbuf *text)
{
    const mr_model *model = mr_llava_model(llava);
    const int S = mr_llava_vision(llava)->image_size;
    char numerics[MR_NUMERICS_ID];
    mr_model_numerics_id(model, numerics, sizeof numerics);
    json_t *out = json_pack(
        "{s:o, s:b, s:I, s:I, s:I, s:{s:[i,I], s:[I,i,i,i], s:[I,I,I], s:[I,I,I], s:[i,I,I], "
        "s:[i,i]}, s:{s:f, s:f, s:f, s:f, s:f, s:f}, s:f, s:f, s:f, s:s, s:b}",
        "answer", mr_command_json_text((mr_str){text->data, text->len}), "ended", report->ended,
        "prompt_tokens", (json_int_t)report->prompt_tokens, "positions",
        (json_int_t)report->positions, "answer_tokens", (json_int_t)report->answer_tokens, "shapes",
        "input_ids", 1, (json_int_t)report->positions, "pixel_values", (json_int_t)n_images, 3, S,
        S, "image_features", (json_int_t)n_images, (json_int_t)report->image_tokens,
        (json_int_t)report->feature_width, "projected", (json_int_t)n_images,
        (json_int_t)report->image_tokens, (json_int_t)report->width, "inputs_embeds", 1,
        (json_int_t)report->positions, (json_int_t)report->width, "logits", 1, (int)model->config.V,
        "seconds", "preprocess", 1e-6 * (double)report->preprocess_us, "vision",
        1e-6 * (double)report->vision_us, "project", 1e-6 * (double)report->project_us, "prefill",
        1e-6 * (double)report->prefill_us, "decode", 1e-6 * (double)report->decode_us,
        "first_token", 1e-6 * (double)report->first_token_us, "tokens_per_second",
        tokens_per_second(report), "max_rss_mb", max_rss_mb(), "own_mb",
        1e-6 * (double)mr_llava_bytes(llava), "numerics_id", numerics, "untrained",
        mr_llava_is_untrained(llava));
    if (out && mr_llava_is_untrained(llava))
        json_object_set_new(out, "notice", json_string(NOTICE));
    mr_command_print_json(out);
}

/* ---- The command ----------------------------------------------------------------------------- */

static mr_status read_images(mr_arena *arena, const mr_option_list *files, mr_llava_image *images,
                             mr_error *err)
{
    mr_status status = MR_OK;
    for (size_t i = 0; status == MR_OK && i < files->n; i++) {
        mr_str bytes;
        status = mr_file_read(arena, files->value[i], MR_COMMAND_MAX_IMAGE, &bytes, err);
        if (status == MR_OK)
            images[i] = (mr_llava_image){files->value[i], {bytes.data, bytes.len}};
    }
    return status;
}

static mr_status answer(const caption_options *opt, mr_llava *llava, const mr_llava_image *images,
                        mr_error *err)
{
    listener l = {.print = !opt->json, .on_terminal = isatty(STDOUT_FILENO) != 0};
    mr_llava_report report;
    const mr_llava_request request = {.prompt = mr_str_of(opt->prompt),
                                      .raw_prompt = opt->raw_prompt,
                                      .images = images,
                                      .n_images = opt->images.n,
                                      .max_tokens = (size_t)opt->max_tokens,
                                      .temperature = opt->temperature,
                                      .top_p = opt->top_p,
                                      .seed = (uint64_t)opt->seed};
    if (mr_llava_is_untrained(llava))
        fprintf(stderr, "mixrank %s: %s\n", help.name, NOTICE);
    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "reading %zu picture%s and the prompt ...", opt->images.n,
                opt->images.n == 1 ? "" : "s");
        l.waiting = true;
    }
    mr_status status = mr_llava_answer(llava, &request, on_text, &l, &report, err);
    stop_waiting(&l);
    if (status == MR_OK && l.text.failed)
        status = MR_FAIL(err, NO_MEMORY, "the answer's text");
    if (status == MR_OK) {
        if (opt->json)
            print_report(llava, &report, opt->images.n, &l.text);
        else
            putchar('\n');
        fflush(stdout);
        if (opt->explain)
            print_explanation(llava, &report, opt->images.n);
    }
    mr_strbuf_release(&l.text);
    return status;
}

int mr_cmd_caption(int argc, char **argv)
{
    caption_options opt = {.max_tokens = 256, .top_p = 1};
    int n_positional = 0, code = 0;
    if (!mr_command_options(&help, options, argc, argv, &opt, &n_positional, &code))
        return code;
    if (n_positional)
        return mr_command_misuse(help.name,
                                 "unexpected argument '%s'; pictures are given with "
                                 "--image",
                                 argv[1]);
    if (!opt.model)
        return mr_command_misuse(help.name, "--model is missing");
    if (!opt.prompt)
        return mr_command_misuse(help.name, "--prompt is missing");

    mr_error err = {0};
    mr_arena arena = {0};
    mr_pool *pool = NULL;
    mr_llava *llava = NULL;
    mr_llava_image images[MR_OPTION_LIST_MAX];
    mr_status status = read_images(&arena, &opt.images, images, &err);
    if (status == MR_OK)
        status = mr_pool_new(&pool, (int)opt.threads, &err);
    const mr_llava_options llava_options = {
        .pool = pool, .max_positions = (size_t)opt.context, .pad_to_square = opt.pad_square};
    if (status == MR_OK)
        status = mr_llava_open(&llava, opt.model, &llava_options, &err);
    if (status == MR_OK)
        status = answer(&opt, llava, images, &err);
    mr_llava_close(llava);
    mr_pool_free(pool);
    mr_arena_done(&arena);
    return status == MR_OK ? MR_EXIT_OK : mr_command_fail(help.name, &err);
}
