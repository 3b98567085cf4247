/* train_bpe.c - see train_bpe.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/train_bpe.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/jsonl.h"
#include "ranker/training/bpe.h"

typedef struct {
    const mr_recipe *recipe;
    const volatile sig_atomic_t *stop;
    mr_jsonl reader;
    json_t *row; /* whose text is lent out */
    size_t next_file;
    bool open;
} text_source;

static mr_status read_row(text_source *s, mr_str *text, mr_error *err)
{
    mr_status status = mr_jsonl_next(&s->reader, &s->row, err);
    if (status != MR_OK || !s->row)
        return status;
    mr_json_cursor cur = mr_json_cursor_of("the row", s->row, err);
    *text = mr_str_of(mr_json_string(&cur, "text", NULL, true));
    if (cur.status != MR_OK)
        mr_error_prefix(err, cur.status, "line %" PRIu64 " of %s", s->reader.line_number,
                        s->reader.name);
    return cur.status;
}

static mr_status next_text(void *context, mr_str *text, mr_error *err)
{
    text_source *s = context;
    *text = (mr_str){0};
    for (;;) {
        json_decref(s->row);
        s->row = NULL;
        if (s->stop && *s->stop)
            return MR_FAIL(err, CANCELLED, "stopped: a vocabulary is learnt in one go");
        if (!s->open) {
            if (s->next_file == s->recipe->data.n_texts)
                return MR_OK;
            mr_status status = mr_jsonl_open(&s->reader, s->recipe->data.texts[s->next_file++],
                                             MR_JSONL_MAX_LINE, err);
            if (status != MR_OK)
                return status;
            s->open = true;
        }
        mr_status status = read_row(s, text, err);
        if (status != MR_OK || s->row)
            return status;
        mr_jsonl_close(&s->reader);
        s->open = false;
    }
}

/* MR_END_OF_TEXT when it is one of them. */
static const char *end_of_text(const char *const *special, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(special[i], MR_END_OF_TEXT) == 0)
            return special[i];
    }
    return NULL;
}

mr_status mr_train_bpe(const mr_recipe *recipe, const mr_train_options *opt,
                       mr_train_summary *summary, mr_error *err)
{
    static const char *const only[] = {MR_END_OF_TEXT};
    const size_t n = recipe->n_special ? recipe->n_special : 1;
    const char **special = calloc(n, sizeof *special);
    text_source source = {.recipe = recipe, .stop = opt->stop};
    mr_bpe *bpe = NULL;
    if (!special)
        return MR_FAIL(err, NO_MEMORY, "%zu special tokens", n);
    for (size_t i = 0; i < n; i++)
        special[i] = recipe->n_special ? recipe->special[i] : only[i];
    const mr_bpe_options options = {.vocab_size = recipe->vocabulary,
                                    .min_frequency = (uint64_t)recipe->min_frequency,
                                    .words = recipe->style,
                                    .lowercase = recipe->lowercase,
                                    .special = special,
                                    .n_special = n,
                                    .end_of_text = end_of_text(special, n)};
    mr_status status = mr_file_make_folders(opt->out, err);
    if (status == MR_OK)
        status = mr_bpe_train(&bpe, &options, next_text, &source, err);
    if (status == MR_OK)
        status = mr_bpe_write(bpe, opt->out, err);
    if (status == MR_OK)
        *summary = (mr_train_summary){.finished = true,
                                      .valid_loss = (double)NAN,
                                      .tokens = (uint64_t)mr_bpe_figures_of(bpe)->vocab_size};
    mr_bpe_free(bpe);
    json_decref(source.row);
    if (source.open)
        mr_jsonl_close(&source.reader);
    free(special);
    return status;
}
