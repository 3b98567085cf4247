/* projector_train.c - see projector_train.h: shapes and weights; the computing part is
 * projector_train.inc, in float and in double.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/projector_train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/layout.h"
#include "encoders/projector.h"

mr_status mr_projector_train_shape(mr_projector_shape *out, const char *path, size_t in,
                                   mr_error *err)
{
    if (!path) {
        *out = (mr_projector_shape){.form = MR_PROJECTOR_IDENTITY, .in = in, .out = in};
        return MR_OK;
    }
    mr_safetensors *file = NULL;
    mr_projector *projector = NULL;
    mr_status status = mr_safetensors_open(&file, path, err);
    /* Serving's reader looks at everything that may be wrong with it. */
    if (status == MR_OK)
        status = mr_projector_bind(&projector, file, in, 0, err);
    if (status != MR_OK)
        goto out;
    const mr_tensor *first = mr_safetensors_find(file, "linear_1.weight");
    const mr_tensor *second = mr_safetensors_find(file, "linear_2.weight");
    if (!first) {
        status = MR_FAIL(err, UNSUPPORTED,
                         "%s: its projector is part of a whole LLaVA; training starts from a "
                         "projector's own file, with 'linear_1.weight' in it",
                         path);
        goto out;
    }
    *out = (mr_projector_shape){.form = second ? MR_PROJECTOR_MLP : MR_PROJECTOR_LINEAR,
                                .in = mr_projector_in_dim(projector),
                                .hidden = second ? (size_t)first->shape[0] : 0,
                                .out = mr_projector_out_dim(projector),
                                .bias = {mr_safetensors_find(file, "linear_1.bias") != NULL,
                                         mr_safetensors_find(file, "linear_2.bias") != NULL}};

out:
    mr_projector_close(projector);
    mr_safetensors_close(file);
    return status;
}

mr_status mr_projector_train_add(mr_projector_layout *out, const mr_projector_shape *shape,
                                 mr_weights *weights, mr_error *err)
{
    const bool is_mlp = shape->form == MR_PROJECTOR_MLP;
    if (shape->in == 0 || shape->out == 0 || (is_mlp && shape->hidden == 0))
        return MR_FAIL(err, INVALID,
                       "a projector from %zu to %zu numbers with %zu between: none "
                       "may be 0",
                       shape->in, shape->out, shape->hidden);
    if (shape->form == MR_PROJECTOR_IDENTITY && shape->in != shape->out)
        return MR_FAIL(err, INVALID,
                       "vectors of %zu numbers where %zu are expected, and no projector; make it "
                       "linear or mlp",
                       shape->in, shape->out);
    *out = (mr_projector_layout){.shape = *shape};
    if (shape->form == MR_PROJECTOR_IDENTITY)
        return MR_OK;
    const mr_linear_part first = {"linear_1", is_mlp ? shape->hidden : shape->out};
    const mr_linear_part second = {"linear_2", shape->out};
    out->first = mr_linear_add(weights, "", &first, 1, shape->in, shape->bias[0]);
    if (is_mlp)
        out->second = mr_linear_add(weights, "", &second, 1, shape->hidden, shape->bias[1]);
    return mr_weights_check(weights, err);
}

#define REAL    float
#define NAME(x) x##_f32
#include "ranker/training/projector_train.inc"
#undef REAL
#undef NAME
#define REAL    double
#define NAME(x) x##_f64
#include "ranker/training/projector_train.inc"
#undef REAL
#undef NAME
