// Elements and number formats used by all sections. Text is always set as text, never as markup.

const SVG = 'http://www.w3.org/2000/svg';

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'css') for (const [key, setting] of Object.entries(value)) node.style.setProperty(key, setting);
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

let unique = 0;
const freshId = (stem) => `${stem}-${++unique}`;

function announce(text) {
  document.getElementById('live').textContent = text;
}

// Numbers, by the rules of effx/formatting.py, whose docstrings describe them; DATA.units is its UNITS.
const NOT_MEASURED = '–';
const absent = (value) => value === null || value === undefined || !Number.isFinite(value);
const unitSymbol = (unit) => DATA.units[unit][1];
const unitFactor = (unit) => DATA.units[unit][0];

function fixed(value, decimals) {
  if (absent(value)) return NOT_MEASURED;
  const text = value.toFixed(decimals);
  return Number(text) === 0 ? text.replace('-', '') : text;
}

function significant(value, digits = 3) {
  if (absent(value)) return NOT_MEASURED;
  if (value === 0) return '0';
  const exponential = value.toExponential(digits - 1);
  const exponent = Number(exponential.split('e')[1]);
  return exponent >= 7 || exponent < -4 ? exponential : fixed(value, Math.max(0, digits - 1 - exponent));
}

function inColumn(value, unit) {
  if (absent(value)) return NOT_MEASURED;
  return unit === '' ? fixed(value, 4) : significant(value * unitFactor(unit));
}

const withUnit = (value, unit) => [inColumn(value, unit), unitSymbol(unit)].filter(Boolean).join(' ');

function interval(low, high, unit) {
  return absent(low) || absent(high) ? '' : `[${inColumn(low, unit)}, ${inColumn(high, unit)}]`;
}

const ratioNumber = (value) => (value >= 0.1 && value < 10 ? fixed(value, 2) : significant(value));

function percent(share, decimals = 0) {
  if (absent(share)) return NOT_MEASURED;
  const extreme = (share > 0 && share < 0.01) || (share > 0.99 && share < 1);
  return `${fixed(100 * share, extreme ? Math.max(decimals, 1) : decimals)} %`;
}

function percentagePoints(difference) {
  const text = fixed(100 * difference, 1);
  return text.startsWith('-') ? text : `+${text}`;
}

const pValue = (p) => (p < 1e-4 ? 'p < 0.0001' : `p = ${significant(p, 2)}`);

const count = (number, word) => `${number.toLocaleString('en')} ${word}${number === 1 ? '' : 's'}`;

function throttled(action) {
  let waiting = null;
  return (...values) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => action(...values), 120);
  };
}

function select(label, options, value, onchange) {
  const control = el('select', { id: freshId('select') },
    options.map(([key, text]) => el('option', { value: key, selected: String(key) === String(value) }, text)));
  control.addEventListener('change', () => onchange(control.value));
  return field(label, control);
}

// The label is next to its control, not around it: otherwise the options would be part of its name.
const field = (label, control) => el('div', { class: 'field' }, el('label', { for: control.id }, label), control);

function checkbox(label, checked, onchange) {
  const control = el('input', { type: 'checkbox', id: freshId('check'), checked });
  control.addEventListener('change', () => onchange(control.checked));
  return el('label', { class: 'check', for: control.id }, control, label);
}

// A section of the page with its heading and its entry in the table of contents.
function section(id, title, ...children) {
  const node = el('section', { 'aria-labelledby': id }, el('h2', { id, tabindex: '-1' }, title), ...children);
  document.getElementById('main').append(node);
  document.getElementById('contents').append(el('a', { href: `#${id}` }, title));
  return node;
}

const soft = (...text) => el('p', { class: 'soft' }, ...text);
