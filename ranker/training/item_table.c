/* item_table.c - see item_table.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/item_table.h"

#include <stdlib.h>
#include <string.h>

#include "ranker/training/encoder_pass.h"

#define TEXTS 64 /* per pass */

mr_status mr_item_texts_add(mr_text_table *out, const mr_trainer *t, const mr_lists *lists,
                            int max_tokens, mr_error *err)
{
    const mr_trainer_spec *spec = &t->spec;
    const int32_t eos = spec->item_append_eos ? t->encoder.decoder.config.eos_id : -1;
    mr_prompt prompt = {0};
    mr_status status = MR_OK;
    for (uint32_t i = 0; status == MR_OK && i < mr_lists_n_items(lists); i++) {
        const mr_item *item = mr_lists_item(lists, i);
        status = mr_text_table_add(out, spec->item_text, item->fields, spec->item_tokens,
                                   max_tokens, eos, &prompt, err);
        if (status != MR_OK)
            mr_error_prefix(err, status, "item '%.*s'", MR_STR_ARG(item->id));
    }
    mr_prompt_release(&prompt);
    return status;
}

typedef struct {
    const mr_text_table *texts;
    mr_encoder_pass *pass; /* one per thread */
    float *out;
    size_t width; /* T x dim */
    mr_status *status;
    mr_error *error;
} table_job;

static void encode_task(void *context, size_t begin, size_t end, int worker)
{
    table_job *job = context;
    mr_encoder_pass *pass = &job->pass[worker];
    for (size_t block = begin; block < end && job->status[worker] == MR_OK; block++) {
        const size_t first = block * TEXTS;
        mr_encoder_pass_clear(pass);
        for (size_t i = first; i < first + TEXTS && i < job->texts->n; i++) {
            size_t n;
            const int32_t *ids = mr_text_table_at(job->texts, i, &n);
            job->status[worker] = mr_encoder_pass_add(pass, ids, n, &job->error[worker]);
            if (job->status[worker] != MR_OK)
                return;
        }
        memcpy(job->out + first * job->width, mr_encoder_pass_forward(pass),
               pass->pack.n_spans * job->width * sizeof(float));
    }
}

mr_status mr_item_table_new(float **out, const mr_trainer *t, const mr_text_table *texts,
                            mr_error *err)
{
    const size_t threads = (size_t)mr_pool_threads(t->pool);
    table_job job = {.texts = texts,
                     .width = (size_t)t->spec.item_tokens * (size_t)t->encoder.decoder.config.C};
    mr_status status = MR_OK;
    job.out = calloc(texts->n + 1, job.width * sizeof(float));
    job.pass = calloc(threads, sizeof *job.pass);
    job.status = calloc(threads, sizeof *job.status);
    job.error = calloc(threads, sizeof *job.error);
    if (!job.out || !job.pass || !job.status || !job.error)
        status = MR_FAIL(err, NO_MEMORY, "embedding tokens of %zu items", texts->n);
    for (size_t i = 0; status == MR_OK && i < threads; i++)
        status = mr_encoder_pass_open(&job.pass[i], t, TEXTS,
                                      TEXTS * (size_t)t->spec.item_max_tokens, err);
    if (status == MR_OK)
        mr_parallel_for(t->pool, (texts->n + TEXTS - 1) / TEXTS, 1, encode_task, &job);
    for (size_t i = 0; status == MR_OK && i < threads; i++) {
        status = job.status[i];
        if (status != MR_OK && err)
            *err = job.error[i];
    }
    for (size_t i = 0; job.pass && i < threads; i++)
        mr_encoder_pass_close(&job.pass[i]);
    free(job.pass);
    free(job.status);
    free(job.error);
    if (status == MR_OK)
        *out = job.out;
    else
        free(job.out);
    return status;
}
