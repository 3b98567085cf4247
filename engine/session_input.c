/* session_input.c - ids and embeddings as a pass takes them: checks, counts, the scatter.
 *
 * Everything that can be wrong with an input is found before a run changes anything.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/session_input.h"

#include <math.h>
#include <string.h>

mr_status mr_input_check(const mr_model *model, const mr_input *input, const char *name,
                         mr_error *err)
{
    const size_t C = (size_t)model->config.C;
    size_t slots = 0;
    if (input->n > 0 && !input->ids)
        return MR_FAIL(err, INVALID, "%s: %zu positions without ids", name, input->n);
    for (size_t i = 0; i < input->n; i++) {
        const int32_t id = input->ids[i];
        if (id == MR_ID_EMBED)
            slots++;
        else if (id < 0 || id >= model->config.V)
            return MR_FAIL(err, INVALID,
                           "%s: id %d at position %zu is outside the vocabulary of %d; is the "
                           "tokenizer another model's?",
                           name, (int)id, i, (int)model->config.V);
    }
    if (slots != input->n_embeds)
        return MR_FAIL(err, INVALID,
                       "%s: %zu embedding slots, but %zu embedding vectors; every slot takes one",
                       name, slots, input->n_embeds);
    if (slots > 0 && !input->embeds)
        return MR_FAIL(err, INVALID, "%s: %zu embedding slots without vectors", name, slots);
    for (size_t i = 0; i < slots * C; i++) {
        if (!isfinite(input->embeds[i]))
            return MR_FAIL(err, INVALID, "%s: embedding vector %zu holds %g at component %zu", name,
                           i / C, (double)input->embeds[i], i % C);
    }
    return MR_OK;
}

void mr_input_rows(const mr_model *model, const mr_input *input, size_t begin, size_t end,
                   size_t *embed, float *out)
{
    const size_t C = (size_t)model->config.C;
    for (size_t i = begin; i < end; i++, out += C) {
        if (input->ids[i] == MR_ID_EMBED)
            memcpy(out, input->embeds + (*embed)++ * C, C * sizeof *out);
        else
            mr_model_embed(model, input->ids[i], out);
    }
}

mr_status mr_input_embeds(const mr_model *model, const mr_input *input, float *out, mr_error *err)
{
    mr_status status = mr_input_check(model, input, "input", err);
    if (status != MR_OK)
        return status;
    size_t embed = 0;
    mr_input_rows(model, input, 0, input->n, &embed, out);
    return MR_OK;
}

mr_input mr_input_from(const mr_input *input, size_t position, size_t C)
{
    size_t embeds = 0;
    for (size_t i = 0; i < position; i++)
        embeds += input->ids[i] == MR_ID_EMBED;
    const size_t rest = input->n_embeds - embeds;
    return (mr_input){.ids = input->ids + position,
                      .n = input->n - position,
                      .embeds = rest ? input->embeds + embeds * C : NULL,
                      .n_embeds = rest};
}
