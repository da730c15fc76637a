/** What Go's HTTP/2 prints under `GODEBUG=http2debug=2`: each header field that comes in, here without the time. For debugging clients. */
import type { HeaderList } from "./hpack.ts";

const isOn = /(?:^|,)http2debug=2(?:,|$)/.test(process.env["GODEBUG"] ?? "");

/** Undefined unless the environment asks for it. */
export const traceHeaders: ((headers: HeaderList) => void) | undefined = isOn ? print : undefined;

function print(headers: HeaderList): void {
  let text = "";
  for (let i = 0; i < headers.length; i += 2) {
    const [name, value] = [JSON.stringify(headers[i]), JSON.stringify(headers[i + 1])];
    text += `http2: decoded hpack field header field ${name} = ${value}\n`;
  }
  process.stderr.write(text);
}
