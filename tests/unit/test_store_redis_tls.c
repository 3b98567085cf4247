/* test_store_redis_tls.c - rediss://: whom the certificate is for and who signed it decide.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/redis_fixture.h"

typedef struct {
    char *folder;
    char certificate[512];
    redis_server *server;
    int port; /* of TLS */
} tls_server;

/* A certificate that signs itself, for the name and, where there is one, the address. */
static bool make_certificate(tls_server *t, const char *names)
{
    char command[2048];
    snprintf(t->certificate, sizeof t->certificate, "%s", test_path(t->folder, "c.pem"));
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=store -addext "
             "subjectAltName=%s -keyout '%s' -out '%s' >/dev/null 2>&1",
             names, test_path(t->folder, "k.pem"), t->certificate);
    return system(command) == 0;
}

static void tls_start(tls_server *t, const char *names)
{
    char lines[2048];
    t->folder = test_folder_new();
    t->port = redis_server_free_port();
    if (!make_certificate(t, names)) {
        test_folder_free(t->folder);
        print_message("skipped: no openssl to make a certificate with\n");
        skip();
    }
    snprintf(lines, sizeof lines,
             "tls-port %d\ntls-cert-file %s\ntls-key-file %s\ntls-ca-cert-file %s\n"
             "tls-auth-clients no\n",
             t->port, t->certificate, test_path(t->folder, "k.pem"), t->certificate);
    t->server = redis_server_start(&(redis_server_options){.extra = lines});
    if (!t->server) {
        test_folder_free(t->folder);
        print_message("skipped: no redis-server with TLS\n");
        skip();
    }
}

static void tls_stop(tls_server *t)
{
    unsetenv("SSL_CERT_FILE");
    redis_server_free(t->server);
    test_folder_free(t->folder);
}

static void a_server_with_a_good_certificate_is_talked_to(void **state)
{
    static const char *const hosts[] = {"localhost", "127.0.0.1"};
    tls_server t;
    (void)state;
    tls_start(&t, "DNS:localhost,IP:127.0.0.1");
    setenv("SSL_CERT_FILE", t.certificate, 1);
    for (size_t i = 0; i < COUNT(hosts); i++) {
        char url[128];
        mr_store_options options = redis_options();
        mr_error err = {0};
        enum { N = 3000 };
        static char names[N][16];
        static mr_str ids[N];
        static seen_record seen[N];
        static mr_store_put_item items[N];
        options.cache_bytes = 1 << 20;
        options.connect_timeout_ms = 10000;
        snprintf(url, sizeof url, "rediss://%s:%d", hosts[i], t.port);
        mr_store *store = store_open(url, &options);
        assert_true(health_of(store).tracking);
        for (size_t k = 0; k < N; k++) { /* megabytes: many TLS records each way */
            snprintf(names[k], sizeof names[k], "%zu-%zu", i, k);
            ids[k] = mr_str_of(names[k]);
            items[k] = (mr_store_put_item){ids[k], record_new(SPACE, 1, (float)k, 500)};
        }
        assert_status(mr_store_put(store, MR_ENTITY_ITEM, SPACE, items, N, NULL, &err), MR_OK,
                      &err);
        fetch_ids(store, MR_ENTITY_ITEM, SPACE, ids, N, seen);
        for (size_t k = 0; k < N; k++) {
            assert_true(seen[k].mark == (float)k);
            record_free(items[k].record);
        }
        redis_server_kill(t.server);
        WAIT_FOR(!health_of(store).connected, 2000);
        assert_true(redis_server_restart(t.server));
        put_ok(store, "again", 1, 1);
        mr_store_close(store);
    }
    tls_stop(&t);
}

static void a_certificate_that_proves_nothing_is_refused(void **state)
{
    tls_server t;
    char url[128];
    mr_store_options options = redis_options();
    mr_error err = {0};
    (void)state;
    options.connect_timeout_ms = 10000; /* busy machines, sanitizers: TLS is slow there */
    tls_start(&t, "DNS:elsewhere.example");
    snprintf(url, sizeof url, "rediss://localhost:%d", t.port);
    assert_status(store_open_status(url, &options, &err), MR_IO, &err);
    assert_contains(err.message, "the server's certificate is refused: self-signed certificate");
    assert_contains(err.message, "SSL_CERT_FILE");
    setenv("SSL_CERT_FILE", t.certificate, 1);
    assert_status(store_open_status(url, &options, &err), MR_IO, &err);
    assert_contains(err.message, "certificate is refused: hostname mismatch");
    snprintf(url, sizeof url, "rediss://127.0.0.1:%d", t.port);
    assert_status(store_open_status(url, &options, &err), MR_IO, &err);
    assert_contains(err.message, "certificate is refused: IP address mismatch");
    tls_stop(&t);
}

static void a_port_of_the_other_kind_is_said(void **state)
{
    tls_server t;
    char url[128];
    mr_error err = {0};
    (void)state;
    tls_start(&t, "DNS:localhost");
    setenv("SSL_CERT_FILE", t.certificate, 1);
    snprintf(url, sizeof url, "rediss://localhost:%d", redis_server_port(t.server));
    mr_status status = store_open_status(url, NULL, &err);
    assert_status(status, MR_UNAVAILABLE, &err);
    assert_contains(err.message, "does the port speak TLS?");
    snprintf(url, sizeof url, "redis://localhost:%d", t.port);
    status = store_open_status(url, NULL, &err);
    assert_true(status == MR_UNAVAILABLE || status == MR_CORRUPT);
    tls_stop(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_with_a_good_certificate_is_talked_to),
        cmocka_unit_test(a_certificate_that_proves_nothing_is_refused),
        cmocka_unit_test(a_port_of_the_other_kind_is_said),
    };
    if (redis_server_missing())
        return redis_server_skip();
    return cmocka_run_group_tests_name("store_redis_tls", tests, NULL, NULL);
}
