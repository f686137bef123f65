// Fields of instants on wall clocks, by offsets that the package brings. Times are UTC epoch microseconds, as BigInt.

const SECOND = 1_000_000n;
const MINUTE = 60n * SECOND;
const HOUR = 60n * MINUTE;
const DAY = 24n * HOUR;
export const FIRST_INSTANT = -62_135_596_800n * SECOND; // 0001-01-01T00:00:00Z
export const LAST_INSTANT = 253_402_300_800n * SECOND - 1n; // 9999-12-31T23:59:59.999999Z

const UNITS = { start_of_hour: [HOUR, 0n], start_of_day: [DAY, 0n], start_of_week: [7n * DAY, 3n * DAY] }; // 1970: a Thursday

function floored(value, unit) {
  const whole = value / unit;
  return value % unit < 0n ? whole - 1n : whole;
}

function remainder(value, unit) {
  return value - floored(value, unit) * unit;
}

// Return year, month and day. See https://howardhinnant.github.io/date_algorithms.html, civil_from_days.
function civil(local) {
  const days = Number(floored(local, DAY)) + 719_468;
  const era = Math.floor(days / 146_097);
  const ofEra = days - era * 146_097;
  const year = Math.floor(
    (ofEra - Math.floor(ofEra / 1460) + Math.floor(ofEra / 36_524) - Math.floor(ofEra / 146_096)) / 365,
  );
  const ofYear = ofEra - (365 * year + Math.floor(year / 4) - Math.floor(year / 100));
  const shifted = Math.floor((5 * ofYear + 2) / 153);
  const day = ofYear - Math.floor((153 * shifted + 2) / 5) + 1;
  const month = shifted < 10 ? shifted + 3 : shifted - 9;
  return [year + era * 400 + (month <= 2 ? 1 : 0), month, day];
}

// Return days since 1970 of a date; days_from_civil of the same page.
export function daysOf(year, month, day) {
  const shifted = month <= 2 ? year - 1 : year;
  const era = Math.floor(shifted / 400);
  const ofEra = shifted - era * 400;
  const ofYear = Math.floor((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5) + day - 1;
  return era * 146_097 + ofEra * 365 + Math.floor(ofEra / 4) - Math.floor(ofEra / 100) + ofYear - 719_468;
}

const FIELDS = {
  year: (local) => civil(local)[0],
  month: (local) => civil(local)[1],
  day: (local) => civil(local)[2],
  hour: (local) => Number(remainder(floored(local, HOUR), 24n)),
  minute: (local) => Number(remainder(floored(local, MINUTE), 60n)),
  second: (local) => Number(remainder(floored(local, SECOND), 60n)),
  weekday: (local) => Number(remainder(floored(local, DAY) + 3n, 7n)) + 1,
};

export function partOf(part, zone) {
  const offset = offsetOf(zone);
  const field = Object.hasOwn(FIELDS, part) ? FIELDS[part] : null;
  return field && ((instant) => field(instant + offset(instant)));
}

export function startOf(start, zone) {
  if (start !== "start_of_month" && !Object.hasOwn(UNITS, start)) {
    return null;
  }
  const offset = offsetOf(zone);
  const [unit, first] = UNITS[start] ?? [DAY, 0n];
  return (instant) => {
    const there = offset(instant);
    const local = instant + there;
    const begun =
      start === "start_of_month"
        ? floored(local, DAY) * DAY - BigInt(civil(local)[2] - 1) * DAY
        : floored(local + first, unit) * unit - first;
    const found = begun - offset(begun - there);
    return found >= FIRST_INSTANT && found <= LAST_INSTANT ? found : null;
  };
}

// Return a function from instants to offsets. `offsets[i]` holds until before `instants[i]`.
function offsetOf(zone) {
  const instants = zone.instants.map(BigInt);
  const offsets = zone.offsets.map(BigInt);
  return (instant) => {
    let low = 0;
    let high = instants.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (instant < instants[middle]) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return offsets[low];
  };
}
