/* prompts.c - see prompts.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/model/prompts.h"

mr_status mr_prompt_expand_prefix(const mr_prompt_shape *shape, mr_fields fields,
                                  size_t user_tokens, size_t most, mr_prompt *out, mr_error *err)
{
    size_t reserved = 0;
    const mr_template_input closing = {
        .slot_tokens = {
            [MR_SLOT_ITEM] = shape->item_tokens, [MR_SLOT_IMAGE] = shape->image_tokens}};
    mr_status status = mr_template_fixed_tokens(shape->suffix, &closing, &reserved, err);
    if (status != MR_OK)
        return status;
    if (reserved >= shape->max_length)
        return MR_FAIL(err, EXHAUSTED, "the suffix alone takes %zu of 'max_length' %zu tokens",
                       reserved, shape->max_length);
    const size_t left = shape->max_length - reserved;
    const mr_template_input input = {.fields = fields,
                                     .slot_tokens = {[MR_SLOT_USER] = user_tokens},
                                     .max_tokens = left < most ? left : most};
    status = mr_template_expand(shape->prefix, &input, out, err);
    return status == MR_OK ? status : mr_error_prefix(err, status, "prefix");
}

mr_status mr_prompt_expand_suffix(const mr_prompt_shape *shape, mr_fields fields,
                                  size_t item_tokens, size_t image_tokens, size_t prefix_length,
                                  mr_prompt *out, mr_error *err)
{
    const mr_template_input input = {
        .fields = fields,
        .slot_tokens = {[MR_SLOT_ITEM] = item_tokens, [MR_SLOT_IMAGE] = image_tokens},
        .max_tokens = shape->max_length > prefix_length ? shape->max_length - prefix_length : 1};
    mr_status status = mr_template_expand(shape->suffix, &input, out, err);
    if (status == MR_OK && out->ids.n == 0)
        status = MR_FAIL(err, INVALID, "the suffix expands to no tokens");
    return status;
}
