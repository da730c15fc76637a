/** The bounds of this room. */

/** Letters in front of the dot of a simple token. */
export const TOKEN_PREFIX_LETTERS = 16;
/** When `--auth-token-ttl` is not positive. */
export const TOKEN_TTL_DEFAULT_SECONDS = 300;
/** Between two looks for simple tokens that nobody used in time. */
export const TOKEN_SWEEP_MS = 1000;
/** Simple tokens known at once; one more makes the oldest invalid. A token costs its owner a password check. */
export const TOKENS_MAX = 1_000_000;
/** Verified JWTs that are remembered, so that their signatures need not be checked again. */
export const VERIFIED_TOKENS_MAX = 1024;
export const JWT_TTL_DEFAULT_MS = 300_000;

export const BCRYPT_COST_MIN = 4;
export const BCRYPT_COST_MAX = 31;
export const BCRYPT_COST_DEFAULT = 10;
/** Bytes of a password; bcrypt does not look at more. */
export const PASSWORD_BYTES_MAX = 72;
/** Passwords that wait for a thread; one more is refused. */
export const PASSWORD_JOBS_MAX = 1000;
/** Threads that hash passwords, at most; each is started when all others are busy. */
export const PASSWORD_THREADS_MAX = 4;

/** Bytes of a user's or role's name: it is the key of a row. etcd's bound is 32768, and it dies above. */
export const NAME_BYTES_MAX = 1024;
