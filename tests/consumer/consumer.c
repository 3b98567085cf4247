/* consumer.c - a user's program: the installed headers and libmixrank, nothing else of this tree.
 * Opens a store in memory and a bundle that is not there, and prints what it is told.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include <core/api.h>
#include <core/bytes.h>
#include <core/error.h>
#include <featurestore/store.h>
#include <ranker/model/bundle.h>
#include <ranker/pipeline/ranker.h>

int main(int argc, char **argv)
{
    mr_error err = {0};
    mr_store *store = NULL;
    mr_bundle *bundle = NULL;

    printf("libmixrank %s\n", mr_library_version());
    if (mr_store_open(&store, "memory:", NULL, &err) != MR_OK) {
        fprintf(stderr, "consumer: %s\n", err.message);
        return 1;
    }
    printf("store: %s\n", mr_store_backend(store));
    mr_store_close(store);

    const mr_status status = mr_bundle_open(&bundle, argc > 1 ? argv[1] : "nowhere", NULL, &err);
    if (status == MR_OK) {
        printf("bundle: %s\n", mr_bundle_name(bundle));
        mr_bundle_close(bundle);
        return 0;
    }
    printf("%s: %s\n", mr_status_name(status), err.message);
    mr_rank_reply_free(NULL);
    return 3;
}
