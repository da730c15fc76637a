/** The member cannot start; the message is for the user. */
export class BootstrapError extends Error {
  override readonly name = "BootstrapError";
}
