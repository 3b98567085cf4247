/* rpc_private.h - what the files of the transport share. See rpc_server.h for what it does.
 *
 * Who owns what, and on which thread:
 *
 *   server      options, listeners, certificates, keys; its loops
 *     loop      one thread; an event base; a mailbox through which other threads reach it
 *       connection   a socket and its nghttp2 session; loop thread only
 *         stream     one HTTP/2 stream: parses the request, feeds the reply; loop thread only
 *           call     counted; what handlers see; answered from any thread under its lock
 *
 * A stream and its call point at each other. The call outlives the stream when the client goes
 * away, and call->stream, which only the loop reads, is then NULL. Threads that answer append to
 * the call's queue and post the call to the mailbox; the loop then moves the queue into nghttp2. A
 * mailbox, and what calls need of the server (shared), are counted too, so that a call may outlive
 * its server.
 *
 * nghttp2 must not be entered from its own callbacks, and nothing that it may still look at may be
 * freed there. So callbacks only record, submit and mark a connection dirty; mr_rpc_loop_settle, at
 * the end of every event, answers the mailbox, sends, and frees.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_SERVICE_RPC_PRIVATE_H
#define MR_RANKER_SERVICE_RPC_PRIVATE_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "ranker/service/rpc_compress.h"
#include "ranker/service/rpc_server.h"
#include "ranker/service/rpc_wire.h"

#define MR_RPC_PEER        64
#define MR_RPC_MOST_LISTEN 16
#define MR_RPC_MOST_METADATA \
    ((size_t)8192) /* bytes that a handler may add to headers or trailers */

typedef struct mr_rpc_loop mr_rpc_loop;
typedef struct mr_rpc_connection mr_rpc_connection;
typedef struct mr_rpc_stream mr_rpc_stream;
typedef struct mr_rpc_instruments mr_rpc_instruments;
typedef struct mr_rpc_keys mr_rpc_keys;

/* ---- shared (rpc_shared.c) ---- */

typedef enum {
    MR_RPC_N_CONNECTIONS, /* now; the next too */
    MR_RPC_N_CALLS,
    MR_RPC_N_ACCEPTED,
    MR_RPC_N_REFUSED,
    MR_RPC_N_ACCEPT_ERRORS,
    MR_RPC_N_RESETS_RECEIVED,
    MR_RPC_N_RESETS_SENT,
    MR_RPC_N_DROPPED,
    MR_RPC_N_RECEIVED,
    MR_RPC_N_SENT,
    MR_RPC_N_FINISHED,
    MR_RPC_COUNTERS
} mr_rpc_counter;

typedef struct {
    atomic_size_t refs;
    mr_rpc_options opt;     /* defaults filled in; no pointers in it but metrics */
    mr_rpc_method *methods; /* owned; by path */
    size_t n_methods;
    mr_rpc_budget budget;
    atomic_bool draining;
    atomic_uint_least64_t count[MR_RPC_COUNTERS];
    mr_rpc_instruments *instruments; /* owned; NULL: not counted. Loop threads only */
} mr_rpc_shared;

mr_rpc_shared *mr_rpc_shared_new(const mr_rpc_options *options); /* NULL: memory is out */
void mr_rpc_shared_ref(mr_rpc_shared *shared);
void mr_rpc_shared_unref(mr_rpc_shared *shared);
const mr_rpc_method *mr_rpc_shared_find(const mr_rpc_shared *shared, mr_str path);
void mr_rpc_count(mr_rpc_shared *shared, mr_rpc_counter which, int64_t amount);
uint64_t mr_rpc_counted(const mr_rpc_shared *shared, mr_rpc_counter which);

/* rpc_metrics.c. NULL registry or memory out: NULL, which all accept. */
mr_rpc_instruments *mr_rpc_instruments_new(mr_metrics *metrics, const mr_rpc_method *methods,
                                           size_t n_methods);
void mr_rpc_instruments_free(mr_rpc_instruments *instruments);
/* method NULL: a path that we do not serve. */
void mr_rpc_instruments_call(mr_rpc_shared *shared, const mr_rpc_method *method, mr_rpc_code code,
                             double seconds);
/* The counters, from when the registry is read; detach before the registry goes. */
mr_status mr_rpc_instruments_attach(mr_rpc_shared *shared, mr_error *err);
void mr_rpc_instruments_detach(mr_rpc_shared *shared);

/* ---- metadata (rpc_metadata.c) ---- */

/* Names and values in one buffer, in order. Pointers out of it hold until the next add. */
typedef struct {
    mr_rpc_buffer bytes;
    size_t n;
} mr_rpc_metadata;

typedef struct {
    mr_str name, value;
} mr_rpc_pair;

mr_rpc_wire mr_rpc_metadata_add(mr_rpc_metadata *md, mr_str name, mr_str value);
/* From the wire: -bin values are decoded, several in one header become several. */
mr_rpc_wire mr_rpc_metadata_receive(mr_rpc_metadata *md, mr_str name, mr_str value);
/* Starts with *at = 0; false at the end. */
bool mr_rpc_metadata_next(const mr_rpc_metadata *md, size_t *at, mr_rpc_pair *out);

/* ---- call (rpc_call.c) ---- */

typedef struct mr_rpc_mailbox mr_rpc_mailbox;

typedef struct mr_rpc_out {
    struct mr_rpc_out *next;
    size_t len, charged;
    uint8_t *data; /* owned */
} mr_rpc_out;

struct mr_rpc_call {
    atomic_uint refs;  /* the users' together one, the stream one, the mailbox one while posted */
    atomic_uint users; /* handlers and those who called ref */
    atomic_bool cancelled;
    mr_rpc_mailbox *mailbox; /* counted */
    mr_rpc_shared *shared;   /* counted */

    /* Loop thread, written before the handler runs, read by all after. */
    const mr_rpc_method *method; /* NULL while unknown */
    int64_t arrived_us, deadline_us;
    char peer[MR_RPC_PEER];
    mr_rpc_metadata metadata;
    mr_rpc_buffer request;
    bool request_ended, accepts_gzip;
    void *user;
    void (*destroy)(void *user);

    mr_rpc_stream *stream; /* loop thread only */

    mr_rpc_call *next; /* mailbox's lock; the next too */
    bool posted;

    pthread_mutex_t lock; /* for all below */
    mr_rpc_hook on_cancel, on_writable;
    mr_rpc_out *out, *out_last;
    size_t out_at;    /* sent bytes of the first */
    size_t out_bytes; /* waiting in all */
    bool wrote, blocked, writable_due;
    bool finished;   /* has its status, whoever gave it */
    bool owner_done; /* the owner gave one: it need not hear of a cancellation */
    mr_rpc_code code;
    char *message; /* owned */
    mr_rpc_metadata headers, trailers;
};

mr_rpc_call *mr_rpc_call_new(mr_rpc_mailbox *mailbox, const char *peer); /* one ref, no user */
void mr_rpc_call_drop(mr_rpc_call *call); /* gives back a plain ref */
/* Ends it with a status of the transport's; the owner's hook runs later, on the loop. */
void mr_rpc_call_abort(mr_rpc_call *call, mr_rpc_code code, const char *message);
/* Loop thread: ends the call from our side with a status, tells its owner. False: it had been
 * finished. discard: nobody will read what is queued. */
bool mr_rpc_call_cancel(mr_rpc_call *call, mr_rpc_code code, const char *message, bool discard);
typedef struct {
    bool wrote, finished, waiting; /* waiting: something in the queue */
    bool full;                     /* no more would be taken */
    bool writable;                 /* the writable hook is due */
    mr_rpc_hook on_writable;
} mr_rpc_call_state;
/* advance: whoever looks serves what is due. */
mr_rpc_call_state mr_rpc_call_look(mr_rpc_call *call, bool advance);
void mr_rpc_call_want_room(mr_rpc_call *call); /* the writable hook is due once it has drained */
/* Moves up to size bytes of the queue out; *last when nothing is left and the call is finished. */
size_t mr_rpc_call_take(mr_rpc_call *call, uint8_t *out, size_t size, bool *last);

/* ---- mailbox (rpc_mailbox.c) and loop (rpc_loop.c) ---- */

enum { MR_RPC_COMMAND_DRAIN = 1, MR_RPC_COMMAND_CANCEL = 2, MR_RPC_COMMAND_QUIT = 4 };

typedef struct mr_rpc_socket {
    struct mr_rpc_socket *next;
    int fd;
    bool tls;
    char peer[MR_RPC_PEER];
} mr_rpc_socket;

struct mr_rpc_mailbox {
    atomic_size_t refs;
    mr_rpc_shared *shared; /* counted */
    pthread_mutex_t lock;  /* for all below */
    int wake_fd;           /* eventfd; -1 once closed */
    bool woken;
    unsigned commands;
    mr_rpc_call *first, *last; /* each counted */
    mr_rpc_socket *sockets;    /* new connections */
};

mr_rpc_mailbox *mr_rpc_mailbox_new(mr_rpc_shared *shared);
void mr_rpc_mailbox_ref(mr_rpc_mailbox *mailbox);
void mr_rpc_mailbox_unref(mr_rpc_mailbox *mailbox);
void mr_rpc_mailbox_post(mr_rpc_mailbox *mailbox, mr_rpc_call *call);
void mr_rpc_mailbox_command(mr_rpc_mailbox *mailbox, unsigned command);
/* Takes the socket, also when that fails (it is then closed). */
void mr_rpc_mailbox_hand(mr_rpc_mailbox *mailbox, mr_rpc_socket *socket);
void mr_rpc_mailbox_wake(mr_rpc_mailbox *mailbox); /* by its own loop: there is more to do */
void mr_rpc_mailbox_close(mr_rpc_mailbox *mailbox);

/* What a loop takes out at once. */
typedef struct {
    unsigned commands;
    mr_rpc_call *calls;
    mr_rpc_socket *sockets;
} mr_rpc_mail;

bool mr_rpc_mailbox_take(mr_rpc_mailbox *mailbox, mr_rpc_mail *out); /* false: nothing there */
/* The next call, with the mailbox's reference; NULL at the end. */
mr_rpc_call *mr_rpc_mailbox_next(mr_rpc_mailbox *mailbox, mr_rpc_mail *mail);

#define MR_RPC_READ_BYTES  ((size_t)65536)
#define MR_RPC_WRITE_BYTES ((size_t)131072)

struct mr_rpc_loop {
    mr_rpc_server *server;
    mr_rpc_shared *shared;
    mr_rpc_mailbox *mailbox;
    struct event_base *base;
    struct event *wake, *sweep;
    pthread_t thread;
    bool running, draining;
    int64_t now_us;                 /* at the start of the event */
    mr_rpc_connection *connections; /* all */
    mr_rpc_connection *dirty;       /* with something to send, or to be freed */
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    uint8_t *read_buffer, *write_buffer;
    void (*on_drain)(void *context); /* loop 0: closes the listeners */
    void *on_drain_context;
};

mr_status mr_rpc_loop_open(mr_rpc_loop *loop, mr_rpc_server *server, mr_rpc_shared *shared,
                           mr_error *err);
void mr_rpc_loop_close(mr_rpc_loop *loop); /* not running; accepts half-open ones */
mr_status mr_rpc_loop_start(mr_rpc_loop *loop, mr_error *err);
/* Every event of ours begins and ends with these. */
void mr_rpc_loop_enter(mr_rpc_loop *loop);
void mr_rpc_loop_settle(mr_rpc_loop *loop);
bool mr_rpc_loop_is_current(const mr_rpc_mailbox *mailbox); /* between the two, on this thread */

/* ---- sockets (rpc_io.c) ---- */

typedef enum { MR_RPC_IO_BLOCKED = -1, MR_RPC_IO_FAILED = -2 } mr_rpc_io_result;

typedef struct {
    int fd;
    SSL *ssl;         /* NULL: plain */
    bool open;        /* handshake done */
    bool wants_write; /* TLS has something of its own to send */
} mr_rpc_io;

/* Bytes, 0 at the end of the stream (read), or an mr_rpc_io_result. */
ssize_t mr_rpc_io_read(mr_rpc_io *io, uint8_t *data, size_t size);
ssize_t mr_rpc_io_write(mr_rpc_io *io, const uint8_t *data, size_t len);
/* 1 when done. */
int mr_rpc_io_handshake(mr_rpc_io *io);
void mr_rpc_io_shutdown(mr_rpc_io *io); /* our side: no more will be sent */
void mr_rpc_io_close(mr_rpc_io *io);

/* ---- connection (rpc_connection.c, rpc_session.c) ---- */

typedef enum {
    MR_RPC_OPEN,
    MR_RPC_LINGERING, /* all is said; reads and throws away until the client closes */
    MR_RPC_DEAD,
} mr_rpc_connection_state;

/* A token bucket for frames that cost us work and bring nothing. */
typedef struct {
    double tokens;
    int64_t filled_us;
} mr_rpc_bucket;

struct mr_rpc_connection {
    mr_rpc_connection *previous, *next; /* of the loop */
    mr_rpc_connection *next_dirty;
    mr_rpc_loop *loop;
    mr_rpc_io io;
    struct event reading, writing;
    bool events_set, dirty, read_paused;
    mr_rpc_connection_state state;
    nghttp2_session *session;
    mr_rpc_stream *streams;
    size_t n_streams;
    char peer[MR_RPC_PEER];
    uint8_t *pending; /* owned: what the socket did not take yet */
    size_t pending_at, pending_len;
    bool greeted;        /* the client's SETTINGS came */
    int64_t opened_us;   /* lingering: since when */
    int64_t received_us; /* last byte */
    int64_t progress_us; /* last byte taken by the socket, or nothing pending */
    int64_t pinged_us;   /* 0: no ping unanswered */
    int64_t frame_us;    /* a frame of headers has begun; 0: none */
    int64_t idle_us;     /* since when without streams */
    int64_t notice_us;   /* drain: notice sent; 0: not */
    bool going;          /* GOAWAY sent */
    bool condemned;      /* GOAWAY because of what the client did */
    mr_rpc_bucket idle_frames, their_resets, our_resets;
};

/* Takes socket->fd in any case. */
void mr_rpc_connection_open(mr_rpc_loop *loop, const mr_rpc_socket *socket);
void mr_rpc_connection_dirty(mr_rpc_connection *conn);
void mr_rpc_connection_flush(mr_rpc_connection *conn); /* settle only */
void mr_rpc_connection_free(mr_rpc_connection *conn);  /* settle only */
/* No more is read or sent; freed when the event settles. */
void mr_rpc_connection_kill(mr_rpc_connection *conn);
void mr_rpc_connection_drop(mr_rpc_connection *conn); /* the same, counted: the peer's fault */
/* Says why in a GOAWAY, then ends it. From callbacks too. */
void mr_rpc_connection_condemn(mr_rpc_connection *conn, uint32_t error_code);
void mr_rpc_connection_condemned(mr_rpc_connection *conn); /* the GOAWAY is on its way already */
void mr_rpc_connection_drain(mr_rpc_connection *conn);
void mr_rpc_connection_sweep(mr_rpc_connection *conn); /* time limits */
/* False when the bucket is empty. */
bool mr_rpc_bucket_take(mr_rpc_bucket *bucket, double burst, double per_second, int64_t now_us);

nghttp2_session_callbacks *mr_rpc_session_callbacks(void); /* NULL: memory is out */
nghttp2_option *mr_rpc_session_options(void);
mr_status mr_rpc_session_open(mr_rpc_connection *conn, mr_error *err);

/* ---- stream (rpc_stream.c; headers in rpc_headers.c, replies in rpc_reply.c) ---- */

struct mr_rpc_stream {
    mr_rpc_stream *previous, *next; /* of the connection */
    mr_rpc_connection *conn;
    mr_rpc_call *call;
    int32_t id;
    bool user; /* holds a user reference of the call: BIDI */
    /* request headers */
    size_t header_bytes;
    bool headers_done, is_post, is_grpc, timeout_bad, encoding_bad, authorized;
    mr_rpc_wire headers_wire;
    int64_t timeout_us; /* -1: none */
    mr_rpc_encoding encoding;
    /* request */
    mr_rpc_reader reader;
    bool input_ended; /* END_STREAM came */
    bool discarding;  /* answered, or failed: what else comes is thrown away */
    bool have_message;
    size_t discarded;
    mr_rpc_buffer held; /* BIDI: came while the client does not read */
    int64_t upload_until_us;
    /* reply */
    bool responded, deferred, ended;
    bool expired;     /* ended by us before its time: the status has seconds to get out */
    mr_rpc_code lost; /* what is counted when it does not */
    struct event timer;
    bool timer_set;
};

mr_rpc_stream *mr_rpc_stream_open(mr_rpc_connection *conn, int32_t id);
void mr_rpc_stream_close(mr_rpc_stream *stream); /* frees it; the call goes on as cancelled */
int mr_rpc_stream_header(mr_rpc_stream *stream, mr_str name, mr_str value);
/* All headers are there: a method, or an answer that says why not. */
void mr_rpc_stream_begin(mr_rpc_stream *stream);
void mr_rpc_stream_data(mr_rpc_stream *stream, const uint8_t *data, size_t len);
void mr_rpc_stream_input_end(mr_rpc_stream *stream);
void mr_rpc_stream_resume_input(mr_rpc_stream *stream); /* BIDI: what was held back */
/* Moves what the call has into nghttp2, runs its writable hook. Not from nghttp2's callbacks. */
void mr_rpc_stream_advance(mr_rpc_stream *stream);
void mr_rpc_stream_http_error(mr_rpc_stream *stream, const char *http_status);
void mr_rpc_stream_sent(mr_rpc_stream *stream); /* END_STREAM is out */
void mr_rpc_stream_stop(mr_rpc_stream *stream); /* the grace of a stop is over */
/* An answer of the transport's own; what else the client sends is thrown away. */
void mr_rpc_stream_refuse(mr_rpc_stream *stream, mr_rpc_code code, const char *message);
/* Overload: the same with RESOURCE_EXHAUSTED and when to come again. */
void mr_rpc_stream_shed(mr_rpc_stream *stream, const char *message);
void mr_rpc_stream_arm(mr_rpc_stream *stream); /* the timer, for what comes next */
void mr_rpc_stream_on_timer(evutil_socket_t fd, short what, void *context);

/* ---- server (rpc_server.c, rpc_listen.c, rpc_tls.c, rpc_keys.c) ---- */

mr_status mr_rpc_tls_new(SSL_CTX **out, const char *certificate, const char *key,
                         const char *client_ca, mr_error *err);

mr_status mr_rpc_keys_read(mr_rpc_keys **out, const char *path, mr_error *err);
void mr_rpc_keys_free(mr_rpc_keys *keys); /* NULL is fine */
/* header: the value of authorization. In time that does not depend on how much of a key is right.
 */
bool mr_rpc_keys_accept(const mr_rpc_keys *keys, mr_str header);

typedef struct {
    mr_rpc_server *server;
    int fd;
    bool tls;
    struct event *accepting;
    char *unlink_path; /* owned; of a unix socket */
    char address[128];
} mr_rpc_listener;

typedef struct {
    mr_rpc_listener listener[MR_RPC_MOST_LISTEN];
    size_t n;
    struct event *resume; /* after accept errors */
    bool paused;
    size_t next_loop;
} mr_rpc_listeners;

mr_status mr_rpc_listeners_open(mr_rpc_listeners *listeners, mr_rpc_server *server,
                                const mr_rpc_options *options, mr_error *err);
mr_status mr_rpc_listeners_start(mr_rpc_listeners *listeners, mr_rpc_loop *loop, mr_error *err);
void mr_rpc_listeners_close(mr_rpc_listeners *listeners);

struct mr_rpc_server {
    mr_rpc_shared *shared;
    char *tls_certificate, *tls_key, *tls_client_ca, *keys_file; /* owned; NULL: none */
    pthread_rwlock_t secrets_lock;                               /* for the next two */
    SSL_CTX *tls;
    mr_rpc_keys *keys;
    mr_rpc_listeners listeners;
    mr_rpc_loop *loops;
    size_t n_loops;
    bool started, stopped;
    pthread_mutex_t idle_lock; /* with idle: a connection went away while draining */
    pthread_cond_t idle;
    atomic_size_t cancelled; /* calls that stop had to end */
};

bool mr_rpc_server_authorized(mr_rpc_server *server, mr_str header);
SSL *mr_rpc_server_tls(mr_rpc_server *server); /* NULL: memory is out */

#endif
