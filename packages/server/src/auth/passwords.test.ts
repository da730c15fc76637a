import { describe, expect, it } from "vitest";
import { SeededRandom } from "../lib/random.ts";
import { openPasswords } from "./passwords.ts";

describe.each(["inline", "worker"] as const)("passwords (%s)", (threads) => {
  const open = (cost = 4) => openPasswords({ cost, random: new SeededRandom(3), threads });

  it("are hashed as Go's bcrypt does, each with a salt of its own", async () => {
    const passwords = open();
    try {
      const [one, other] = await Promise.all([passwords.hash("pw"), passwords.hash("pw")]);
      expect(one).toMatch(/^\$2a\$04\$[./A-Za-z0-9]{53}$/);
      expect(other).not.toBe(one);
      expect(await passwords.compare("pw", one as string)).toBe(true);
      expect(await passwords.compare("pw", other as string)).toBe(true);
      expect(await passwords.compare("PW", one as string)).toBe(false);
      expect(await passwords.compare("", await passwords.hash(""))).toBe(true);
    } finally {
      await passwords.stop();
    }
  });

  it("fit what Go has hashed", async () => {
    const passwords = open();
    try {
      // From the tests of golang.org/x/crypto/bcrypt.
      const hash = "$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga";
      expect(await passwords.compare("allmine", hash)).toBe(true);
      expect(await passwords.compare("allmine!", hash)).toBe(false);
    } finally {
      await passwords.stop();
    }
  });

  it("of more than 72 bytes are refused; stored nonsense fits nothing", async () => {
    const passwords = open();
    try {
      await expect(passwords.hash("ä".repeat(37))).rejects.toMatchObject({ kind: "PasswordTooLong" });
      expect(await passwords.hash("ä".repeat(36))).toMatch(/^\$2a\$04/);
      for (const hash of ["", "x", `$9z$04$${"a".repeat(53)}`]) expect(await passwords.compare("pw", hash)).toBe(false);
    } finally {
      await passwords.stop();
    }
  });

  it("are not waited for when the member stops", async () => {
    const passwords = open(threads === "worker" ? 12 : 4);
    const waiting = Array.from({ length: 6 }, () =>
      passwords.hash("pw").then(
        () => "ok",
        (error) => error.kind,
      ),
    );
    await passwords.stop();
    const outcomes = await Promise.all(waiting);
    expect(outcomes.every((outcome) => outcome === (threads === "worker" ? "Stopped" : "ok"))).toBe(true);
  });
});
